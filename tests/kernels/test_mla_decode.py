"""mla_decode against the float64 reference; the CUDA source of its threads on the host."""

import random

import pytest
from support.attention_workloads import mla
from support.emulated import run_emulated
from support.kernel_runs import backend, compiled, run, run_program
from support.random_schedules import assert_random_schedules, counts
from support.tiers import few_of
from support.warp_emulator import COMPILER

from db.records import Outcome, Schedule, Workload
from kernels import backends
from kernels.ops.references import make_case
from kernels.ops.registry import KernelError, nbytes_moved, variants
from kernels.serve import defaults
from kernels.serve.sink import applies

WORKLOADS = {
    "one position": mla(ctx=1, splits=2),
    "short": mla(heads=5, rank=72, rope=20),
    "long": mla(heads=2, ctx=4097, splits=8),
    "deepseek": mla(heads=4, rank=512, rope=64, ctx=70, splits=2),
}
# of an output's size: a score is rounded before it becomes an exponent; emulated halves have no denormals
ELEMENT = 2e-5 if backends.find(backend()).has_half else 8e-5


def assert_right(w, schedule):
    verdict = run(w, schedule)
    assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"
    assert verdict.max_element_error <= ELEMENT


@pytest.mark.parametrize("name", few_of(WORKLOADS, lambda name: name in ("one position", "deepseek")))
def test_under_the_default(name):
    w = WORKLOADS[name]
    assert_right(w, next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend())))


@pytest.mark.parametrize("name", few_of(["short", "long"], lambda name: name == "long"))
def test_under_the_heuristic(name):
    assert_right(WORKLOADS[name], defaults.untuned(WORKLOADS[name]))


@counts()
def test_under_random_schedules(count):
    assert_random_schedules(mla(rank=16, rope=8, ctx=50, splits=2), count, ELEMENT)


def test_one_program_serves_every_position():
    w = mla(ctx=100, splits=2)
    schedule = next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend()))
    program = compiled(w, schedule)
    for position in (0, 1, 63, 102):
        here = Workload(w.op, w.format, w.n, w.k, extra=tuple(sorted({**dict(w.extra), "ctx": position + 1}.items())))
        verdict = run_program(w, schedule.variant, program, make_case(here), {"start_pos": position})
        assert verdict.outcome is Outcome.OK, f"{position}: {verdict.reason}"


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize("variant", ["warp", "team"])
@pytest.mark.parametrize("name", few_of(["one position", "short"], lambda name: name == "short"))
def test_emulated(name, variant, tmp_path):
    w = WORKLOADS[name]
    few = [p for p in variants(w, "CUDA")[variant].params(w) if p["heads"] <= 2]  # the others are long to compile
    params = random.Random(name).choice(few)
    verdict = run_emulated(w, Schedule(variant, tuple(sorted(params.items())), ()), tmp_path)
    assert verdict.outcome is Outcome.OK, f"{params}: {verdict.reason}"
    assert verdict.max_element_error <= ELEMENT


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
def test_the_default_of_a_real_model_emulated(tmp_path):
    w = WORKLOADS["deepseek"]
    schedule = defaults.defaults(w, "CUDA")[0]
    assert schedule.variant == "warp"
    assert run_emulated(w, schedule, tmp_path).outcome is Outcome.OK


def test_a_row_is_read_once_for_keys_and_values():
    w = mla(heads=4, rank=512, rope=64, ctx=1000)
    assert 2 * 576 * 1000 < nbytes_moved(w) < 2 * 576 * 1000 + 20000


def test_sizes_that_do_not_fit_are_refused():
    w = mla()
    with pytest.raises(KernelError, match="k is 49, but 48 follows"):
        variants(Workload(w.op, w.format, w.n, w.k + 1, extra=w.extra))
