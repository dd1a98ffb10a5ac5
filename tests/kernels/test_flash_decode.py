"""flash_decode and flash_combine against the float64 reference; the CUDA source of their threads on the host."""

import math
import random

import numpy as np
import pytest
from support.attention_workloads import combine, flash
from support.emulated import run_emulated
from support.kernel_runs import backend, case_of, compiled, device, run, run_program
from support.random_schedules import assert_random_schedules, counts
from support.tiers import few_of
from support.warp_emulator import COMPILER

from db.records import Outcome, Schedule, Workload
from kernels import backends
from kernels.ops.references import make_case
from kernels.ops.registry import KernelError, nbytes_moved, operands, variants
from kernels.serve import defaults
from kernels.serve.sink import applies

# contexts of one position, of no round number, and long; groups of 1, 4 and 7; heads of every width
WORKLOADS = {
    "one position": flash(dim=64, ctx=1, splits=2),
    "group of 1": flash(heads=3, kv_heads=3, dim=64),
    "group of 4": flash(heads=8, kv_heads=2, dim=64, splits=3),
    "group of 7": flash(heads=7, kv_heads=1, dim=80, ctx=100, splits=2),
    "narrow values": flash(dim=48, value_dim=20, ctx=70, splits=4),
    "long": flash(heads=2, kv_heads=1, dim=64, ctx=4097, splits=8),
    "wide": flash(heads=2, kv_heads=1, dim=256, ctx=40),
    "window": flash(dim=128, ctx=300, window=129, splits=2),
    "window not full": flash(ctx=20, window=100, splits=2),
    "sinks": flash(ctx=50, sinks=True, splits=3),
    "sinks alone": flash(ctx=1, sinks=True),
    "softcap": flash(ctx=60, softcap=5.5, splits=2),
    "narrowest": flash(heads=1, kv_heads=1, dim=2, ctx=9),
    "narrow": flash(dim=8, ctx=9),
    "narrow and long": flash(dim=8, ctx=300),
    "all": flash(heads=6, kv_heads=2, dim=72, ctx=90, window=33, sinks=True, softcap=20, splits=4),
}
# of an output's size: a score is rounded before it becomes an exponent; emulated halves have no denormals
ELEMENT = 2e-5 if backends.find(backend()).has_half else 8e-5


def assert_right(w, schedule, element=ELEMENT):
    verdict = run(w, schedule)
    assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"
    assert verdict.max_element_error <= element


FEW = ("one position", "group of 4", "window", "all")


@pytest.mark.parametrize("name", few_of(WORKLOADS, lambda name: name in FEW, pytest.mark.nightly))
def test_under_the_default(name):
    w = WORKLOADS[name]
    assert_right(w, next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend())))


@pytest.mark.parametrize(
    "name", few_of(["one position", "group of 4", "long", "window"], lambda name: name in FEW[2:4], pytest.mark.nightly)
)
def test_under_the_heuristic(name):
    for choice in defaults.heuristic(WORKLOADS[name], backend()):
        assert choice.opts is None
        assert_right(WORKLOADS[name], choice)


@pytest.mark.parametrize("name", ["sinks", "narrow values"])
@counts(1, 10)
def test_under_random_schedules(name, count):
    assert_random_schedules(WORKLOADS[name], count, ELEMENT)


def test_the_last_default_applies_everywhere():
    for w in WORKLOADS.values():
        for name in ("CPU", "CUDA", "METAL", "CL", "AMD", "WEBGPU", "QCOM", "CPU:X86", "NV:PTX"):
            last = defaults.defaults(w, name)[-1]
            assert dict(last.params) in variants(w, name)[last.variant].params(w)


def test_scores_that_would_overflow():
    """Keys a hundred times as large: exponents up to the thousands."""
    w = flash(ctx=64, splits=2, scale=100)
    assert_right(w, defaults.defaults(w, backend())[-1], 5e-4)  # float32 rounds a score of 3000 to 2e-4


@pytest.mark.parametrize("variant", ["plain", "default"])
def test_one_program_serves_every_position(variant):
    w = flash(ctx=300, splits=4, window=50, sinks=True)
    schedule = {"plain": Schedule("plain", (("columns", 8), ("rows", 16)), ())}.get(variant)
    schedule = schedule or next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend()))
    program = compiled(w, schedule)
    extra = dict(w.extra)
    for position in (0, 1, 48, 49, 50, 299, 304):
        here = Workload(w.op, w.format, w.n, w.k, extra=tuple(sorted({**extra, "ctx": position + 1}.items())))
        verdict = run_program(w, schedule.variant, program, make_case(here), {"start_pos": position})
        assert verdict.outcome is Outcome.OK, f"{position}: {verdict.reason}"


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize("variant", ["warp", "team"])
@pytest.mark.parametrize(
    "name",
    few_of(
        ["one position", "group of 7", "narrow values", "narrow and long", "window", "all"],
        lambda name: name == "all",
        pytest.mark.nightly,
    ),
)
def test_emulated(name, variant, tmp_path):
    w = WORKLOADS[name]
    few = [p for p in variants(w, "CUDA")[variant].params(w) if p["heads"] <= 2]  # the others are long to compile
    params = random.Random(name).choice(few)
    verdict = run_emulated(w, Schedule(variant, tuple(sorted(params.items())), ()), tmp_path)
    assert verdict.outcome is Outcome.OK, f"{params}: {verdict.reason}"
    assert verdict.max_element_error <= ELEMENT


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize(
    "name", few_of(["sinks alone", "narrowest", "narrow", "all"], lambda name: name == "narrow", pytest.mark.nightly)
)
def test_a_warp_s_lanes_past_the_last_column_add_nothing(name, tmp_path):
    """Where lanes are left over, and where a single one has the last columns."""
    first = defaults.defaults(WORKLOADS[name], "CUDA")[0]
    assert first.variant == "warp"
    verdict = run_emulated(WORKLOADS[name], first, tmp_path)
    assert verdict.outcome is Outcome.OK, verdict.reason
    assert verdict.max_element_error <= ELEMENT


COMBINED = (combine(), combine(splits=1), combine(heads=5, dim=80, splits=2), combine(heads=2, dim=7, splits=64))


@pytest.mark.parametrize("w", COMBINED, ids=lambda w: f"{w.n}x{w.k}")
def test_combine(w):
    for schedule in (defaults.untuned(w), *defaults.defaults(w, backend())):
        if applies(w, schedule, backend()):
            assert_right(w, schedule, 2e-6)


@counts()
def test_combine_under_random_schedules(count):
    assert_random_schedules(combine(heads=4, dim=24, splits=8), count, 2e-6)


def test_a_run_without_positions_counts_for_nothing():
    case = case_of(flash(ctx=3, splits=4))
    assert np.isfinite(case.truths["lse"].reference[2]).all()
    assert (case.truths["lse"].reference[3] == -1e30).all()


def test_where_variants_are():
    w = flash()
    assert {"plain", "solo", "team", "warp"} == set(variants(w, "CUDA")) == set(variants(w, "METAL"))
    assert {"plain", "solo", "team"} == set(variants(w, "CL")) == set(variants(w, "AMD"))
    assert {"plain", "solo"} == set(variants(w, "CPU"))
    assert (device().renderer.has_local) == ("team" in variants(w, backend()))


def test_bytes_are_those_of_the_positions_that_are_seen():
    far, near = flash(dim=64, ctx=1000), flash(dim=64, ctx=1000, window=100)
    cache = sum(o.nbytes for o in operands(far) if o.name in "kv") * 1000 // 1005
    assert cache < nbytes_moved(far) < cache + 5000
    assert nbytes_moved(near) < nbytes_moved(far) / 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "F32"}, "'F16' follows"),
        ({"m": 2}, "not 2"),
        ({"epilogue": "add"}, "add"),
        ({"n": 130}, "n is 130, but 128 follows"),
        ({"x_dtype": "int32"}, "int32"),
        ({"extra": (("kv_heads", 3),)}, "kv_heads divides heads"),
        ({"extra": (("ctx", 99),)}, "at most max_ctx"),
        ({"extra": (("splits", 0),)}, "splits must be 1 to 256"),
        ({"extra": (("softcap", "20"),)}, "softcap is a number or null, saw '20'"),
        ({"extra": (("scale", math.nan),)}, "scale is a number, saw nan"),
        ({"extra": (("window", "far"),)}, "window is a whole number, saw 'far'"),
        ({"extra": (("magic", 1),)}, "magic"),
    ],
)
def test_what_no_kernel_computes_is_refused(change, message):
    w, change = flash(), dict(change)
    extra = dict(w.extra) | dict(change.pop("extra", ()))
    fields = {f: getattr(w, f) for f in ("op", "format", "n", "k", "m", "x_dtype", "out_dtype", "epilogue")} | change
    with pytest.raises(KernelError, match=message):
        variants(Workload(**fields, extra=tuple(sorted(extra.items()))))
