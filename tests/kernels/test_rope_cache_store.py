"""rope_cache_store and mla_cache_store against the float64 reference: every byte of the caches, touched or not."""

from dataclasses import replace

import numpy as np
import pytest
from support.attention_workloads import mla_store, rope_store
from support.kernel_runs import backend, compiled, run, run_program
from support.random_schedules import assert_random_schedules, counts
from support.renderers import CL, METAL

from db.records import Outcome, Workload
from kernels.ops.references import make_case
from kernels.ops.registry import KernelError, variants
from kernels.serve import defaults
from kernels.serve.sink import applies

WORKLOADS = {
    "neox": rope_store(),
    "interleaved": rope_store(mode="interleaved"),
    "partial": rope_store(dim=48, rope_dim=20),
    "partial interleaved": rope_store(dim=48, rope_dim=18, mode="interleaved"),
    "norm": rope_store(heads=7, kv_heads=1, dim=80, eps=1e-5),
    "norm, interleaved": rope_store(kv_heads=1, eps=1e-6, mode="interleaved"),
    "several tokens": rope_store(m=4, kv_heads=4, eps=1e-6),
    "no rotation": rope_store(rope_dim=0, mode="none"),
    "narrow values": rope_store(v_head_dim=20),
    "wide values": rope_store(v_head_dim=40, eps=1e-6),
    "one of each": rope_store(heads=1, kv_heads=1, dim=2),
    "full cache": rope_store(max_ctx=1),
    "latent": mla_store(),
    "latent, neox": mla_store(mode="neox", m=2),
    "latent of whole runs": mla_store(rank=64, heads=1),
    "latent, one head": mla_store(heads=1, rank=3, rope=2),
    "latent of wider rows": mla_store(m=2, q_row=130, kv_row=70, kv_start=9),
}
ELEMENT = 1e-6


def assert_right(w, schedule):
    verdict = run(w, schedule)
    assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"
    assert verdict.max_element_error <= ELEMENT


@pytest.mark.parametrize("w", WORKLOADS.values(), ids=WORKLOADS)
def test_plainly_and_under_the_default(w):
    default = next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend()))
    for schedule in dict.fromkeys((defaults.defaults(w, backend())[-1], default)):
        assert_right(w, schedule)


@pytest.mark.parametrize("name", ["neox", "partial interleaved", "norm", "several tokens", "latent"])
def test_under_the_heuristic(name):
    assert_right(WORKLOADS[name], defaults.untuned(WORKLOADS[name]))


@pytest.mark.parametrize("w", [rope_store(kv_heads=1, dim=16, eps=1e-6), mla_store(rank=32, rope=8, nope=4)])
@counts()
def test_under_random_schedules(w, count):
    assert_random_schedules(w, count, ELEMENT)


@pytest.mark.parametrize("name", ["interleaved", "latent"])
def test_a_gpu_has_a_thread_for_each_column(name):
    w = WORKLOADS[name]
    for device, ren in (("METAL", METAL), ("CL", CL)):
        first = next(s for s in defaults.defaults(w, device) if applies(w, s, device, ren))
        assert any(o.op == "LOCAL" for o in first.opts)


def test_one_program_serves_every_position():
    """The references' position is the middle of the cache: caches of other lengths, the same rows of them."""
    w = WORKLOADS["neox"]
    program = compiled(w, defaults.defaults(w, backend())[-1])
    for position in (0, 3, 8):
        case = make_case(w)
        moved = _moved(case, 4, position)
        verdict = run_program(w, "plain", program, moved, {"start_pos": position})
        assert verdict.outcome is Outcome.OK, f"{position}: {verdict.reason}"


def _moved(case, start, position):
    """The same case with the new rows at another position: the tables' rows change places, and so do the caches'."""
    order = np.arange(9)
    order[[start, position]] = order[[position, start]]
    arrays = dict(case.arrays)
    truths = dict(case.truths)
    for name in ("cos", "sin"):
        arrays[name] = arrays[name][order]
    for name in ("k_cache", "v_cache"):
        arrays[name] = arrays[name][:, order]
        old = truths[name]
        rows = (np.arange(len(old.reference)) // 9) * 9 + np.tile(order, len(old.reference) // 9)
        truths[name] = replace(old, reference=old.reference[rows], row_scale=old.row_scale[rows])
    return replace(case, arrays=arrays, truths=truths)


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (rope_store(rope_dim=33), "even number"),
        (rope_store(rope_dim=34), "up to 32 columns"),
        (rope_store(mode="round"), "'round'"),
        (rope_store(max_ctx=2, m=4), "4 tokens are more than max_ctx"),
        (rope_store(eps=0.0), "eps above 0"),
        (rope_store(v_head_dim=0), "v_head_dim above 0"),
        (mla_store(kv_start=1), "kv from kv_start on"),
        (mla_store(mode="round"), "'round'"),
    ],
)
def test_what_no_kernel_computes_is_refused(w, message):
    with pytest.raises(KernelError, match=message):
        variants(w)


@pytest.mark.parametrize("w", [rope_store(), mla_store()])
@pytest.mark.parametrize("change", [{"n": 4}, {"format": "F32"}, {"epilogue": "add"}, {"out_dtype": "int32"}])
def test_other_workloads_are_refused(w, change):
    fields = {f: getattr(w, f) for f in ("op", "format", "n", "k", "m", "x_dtype", "out_dtype", "epilogue")} | change
    with pytest.raises(KernelError):
        variants(Workload(**fields, extra=w.extra))
