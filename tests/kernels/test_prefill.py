"""flash_prefill and mla_prefill against the float64 reference; the CUDA source of their threads on the host."""

import random
from dataclasses import replace

import pytest
from support.attention_workloads import flash_many, mla_many
from support.emulated import run_emulated
from support.kernel_runs import backend, compiled, run, run_program
from support.random_schedules import assert_random_schedules, counts
from support.tiers import few_of
from support.warp_emulator import COMPILER

from db.records import Outcome, Schedule, Workload
from kernels import backends
from kernels.ops.references import make_case
from kernels.ops.registry import KernelError, operands, variants
from kernels.serve import defaults
from kernels.serve.sink import applies

# from the first position on and after others; groups of 1, 3, 4 and 7; windows that end within a run of tokens
WORKLOADS = {
    "one token": flash_many(1, ctx=9),
    "from the start": flash_many(32),
    "odd count": flash_many(7, dim=64, ctx=50),
    "group of 1": flash_many(8, heads=3, kv_heads=3, dim=64, ctx=70),
    "group of 7": flash_many(4, heads=7, kv_heads=1, dim=80, ctx=100),
    "narrow values": flash_many(16, dim=48, value_dim=20, ctx=70),
    "long": flash_many(32, heads=2, kv_heads=1, dim=64, ctx=1025),
    "window": flash_many(32, dim=128, ctx=200, window=5),
    "wide window": flash_many(32, ctx=90, window=64),
    "sinks": flash_many(8, ctx=50, sinks=True),
    "softcap": flash_many(8, ctx=60, softcap=5.5),
    "narrowest": flash_many(4, heads=1, kv_heads=1, dim=2, ctx=9),
    "all": flash_many(16, heads=6, kv_heads=2, dim=72, ctx=90, window=33, sinks=True, softcap=20),
    "latent": mla_many(32),
    "latent, odd": mla_many(6, heads=5, rank=72, rope=20, ctx=40),
    "deepseek": mla_many(8, heads=4, rank=512, rope=64, ctx=70),
}
# of an output's size: a score is rounded before it becomes an exponent; emulated halves have no denormals
ELEMENT = 2e-5 if backends.find(backend()).has_half else 8e-5


def assert_right(w, schedule):
    verdict = run(w, schedule)
    assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"
    assert verdict.max_element_error <= ELEMENT


# what the others show in part
FEW = ("one token", "all", "deepseek")


@pytest.mark.parametrize("name", few_of(WORKLOADS, lambda name: name in FEW, pytest.mark.nightly))
def test_under_the_default(name):
    w = WORKLOADS[name]
    assert_right(w, next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend())))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("wide window", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("odd count", "latent")),
    ],
)
def test_under_the_heuristic(name):
    for choice in defaults.heuristic(WORKLOADS[name], backend()):
        assert choice.opts is None
        assert_right(WORKLOADS[name], choice)


@pytest.mark.parametrize("name", few_of(["sinks", "narrow values", "latent"], lambda name: name == "sinks"))
@counts(1, 10)
def test_under_random_schedules(name, count):
    assert_random_schedules(WORKLOADS[name], count, ELEMENT)


@pytest.mark.parametrize("variant", ["plain", "default"])
def test_one_program_serves_every_position(variant):
    w = flash_many(8, ctx=300, window=50, sinks=True)
    schedule = {"plain": Schedule("plain", (("columns", 8), ("rows", 16)), ())}.get(variant)
    schedule = schedule or next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend()))
    program = compiled(w, schedule)
    for position in (0, 1, 41, 42, 43, 50, 292, 297):
        here = Workload(
            w.op, w.format, w.n, w.k, w.m, extra=tuple(sorted({**dict(w.extra), "ctx": position + 8}.items()))
        )
        verdict = run_program(w, schedule.variant, program, make_case(here), {"start_pos": position})
        assert verdict.outcome is Outcome.OK, f"{position}: {verdict.reason}"


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize("variant", ["warp", pytest.param("team", marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    "name",
    few_of(
        ["from the start", "odd count", "window", "all", "latent, odd"], lambda name: name == "all", pytest.mark.nightly
    ),
)
def test_emulated(name, variant, tmp_path):
    w = WORKLOADS[name]
    # the others are long to compile
    few = sorted(variants(w, "CUDA")[variant].params(w), key=lambda p: p["heads"] * p["tokens"])[:16]
    for _ in range(2):
        params = random.Random(name).choice(few)
        verdict = run_emulated(w, Schedule(variant, tuple(sorted(params.items())), ()), tmp_path)
        assert verdict.outcome is Outcome.OK, f"{params}: {verdict.reason}"
        assert verdict.max_element_error <= ELEMENT


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize("name", few_of(["group of 7", "narrowest", "deepseek"], lambda name: name != "deepseek"))
def test_the_default_of_a_gpu_emulated(name, tmp_path):
    schedule = defaults.defaults(WORKLOADS[name], "CUDA")[0]
    assert schedule.variant == "warp"
    verdict = run_emulated(WORKLOADS[name], schedule, tmp_path)
    assert verdict.outcome is Outcome.OK, verdict.reason


def test_neighbouring_tokens_share_what_is_read():
    for w in (WORKLOADS["from the start"], WORKLOADS["latent"]):
        for name in ("CUDA", "CL", "CPU"):
            first = dict(defaults.defaults(w, name)[0].params)
            assert first["heads"] * first["tokens"] == 8
    assert [o.shape for o in operands(WORKLOADS["sinks"])][:2] == [(8, 4, 32), (8, 4, 32)]
    assert "lse" not in {o.name for o in operands(WORKLOADS["sinks"])}


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (flash_many(8, ctx=7), "ctx holds the 8 tokens"),
        (flash_many(0, ctx=5), "0 tokens"),
        (flash_many(8, window=-1), "0 or more positions"),
        (replace(flash_many(8), extra=(*flash_many(8).extra, ("splits", 2))), "has no field 'splits'"),
        (mla_many(9, ctx=8), "ctx holds the 9 tokens"),
    ],
)
def test_what_no_kernel_computes_is_refused(w, message):
    with pytest.raises(KernelError, match=message):
        variants(w)
