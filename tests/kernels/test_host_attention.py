"""Attention, its caches and the largest logit on a host's processor, against float64 references. In the references'
inputs whatever lies beyond the last position of a cache is NaN."""

import pytest
from support.attention_workloads import host, host_many, host_store
from support.kernel_runs import backend, compiled, run, run_program
from support.random_schedules import assert_random_schedules, counts
from support.tiers import few_of

from db.records import Outcome, Workload
from kernels import backends
from kernels.backends import MOST_SLICES
from kernels.ops.argmax.host_spec import HostArgMax, HostPeaks
from kernels.ops.host_attention.spec import HostCombine, HostDecode, splits
from kernels.ops.references import make_case
from kernels.ops.registry import KernelError, operands, variants
from kernels.serve import defaults

pytestmark = pytest.mark.skipif(not backends.find(backend()).host, reason="for a host's processor only")

ELEMENT = 2e-5  # of an output's size: a score is rounded before it becomes an exponent
SIZES = {
    "group of 1": {"heads": 3, "kv_heads": 3, "dim": 64},
    "group of 3": {"heads": 9, "kv_heads": 3, "dim": 64},
    "group of 8": {"heads": 8, "kv_heads": 1, "dim": 72},
    "80 columns": {"heads": 4, "kv_heads": 2, "dim": 80},
    "narrow values": {"dim": 48, "value_dim": 20},
    "narrowest": {"heads": 1, "kv_heads": 1, "dim": 2},
    "wide": {"heads": 4, "kv_heads": 1, "dim": 256},
    "window": {"dim": 128, "window": 37},
    "sinks": {"sinks": True},
    "softcap": {"softcap": 5.5},
    "all": {"heads": 6, "kv_heads": 2, "dim": 72, "window": 33, "sinks": True, "softcap": 20},
    "many kv heads": {"heads": 70, "kv_heads": 70, "dim": 16},
}
FEW = ("group of 3", "narrow values", "all", "many kv heads")
DECODE = {name: host(ctx=210, splits=2, **sizes) for name, sizes in SIZES.items()}
PREFILL = {name: host_many(12, ctx=90, **sizes) for name, sizes in SIZES.items()}
PREFILL["more runs than slices"] = host_many(131, heads=1, kv_heads=1, dim=16)
STORE = {
    "one token": host_store(),
    "many tokens": host_store(m=17, max_ctx=20),
    "more tokens than slices": host_store(heads=1, kv_heads=1, dim=4, m=130, max_ctx=131),
    "norm": host_store(dim=72, eps=1e-6, m=3),
    "pairs": host_store(mode="interleaved", rope_dim=20, m=2),
    "unrotated": host_store(mode="none", rope_dim=0, v_head_dim=24),
}


def default(w):
    return defaults.defaults(w, backend())[0]


def assert_right(w, schedule=None, element=ELEMENT):
    verdict = run(w, schedule or default(w))
    assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"
    assert verdict.max_element_error <= element


@pytest.mark.parametrize("name", few_of(SIZES, lambda name: name in FEW, pytest.mark.nightly))
def test_one_token(name):
    assert_right(DECODE[name])


@pytest.mark.parametrize("name", few_of(PREFILL, lambda name: name in FEW, pytest.mark.nightly))
def test_the_tokens_of_a_prompt(name):
    assert_right(PREFILL[name])


@pytest.mark.parametrize("name", STORE)
def test_caches(name):
    verdict = run(STORE[name], default(STORE[name]))
    assert verdict.outcome is Outcome.OK, verdict.reason


@pytest.mark.parametrize("kind", [DECODE, PREFILL], ids=["one token", "a prompt"])
@pytest.mark.parametrize("name", ["all", "group of 3"])
@counts(1, 20)
def test_under_random_schedules(kind, name, count):
    assert_random_schedules(kind[name], count, ELEMENT)


@pytest.mark.parametrize("window", [0, 50])
def test_one_program_serves_every_position(window):
    w = host(heads=3, kv_heads=1, ctx=1005, splits=4, window=window, sinks=True)
    program = compiled(w, default(w))
    for position in (0, 1, 15, 16, 17, 49, 50, 63, 64, 255, 256, 1000, 1009):
        extra = {**dict(w.extra), "ctx": position + 1}
        here = Workload(w.op, w.format, w.n, w.k, extra=tuple(sorted(extra.items())))
        verdict = run_program(w, "lanes", program, make_case(here), {"start_pos": position})
        assert verdict.outcome is Outcome.OK, f"{position}: {verdict.reason}"


def test_a_prompt_from_every_position():
    w = host_many(8, heads=3, kv_heads=1, ctx=300, window=50)
    program = compiled(w, default(w))
    for position in (0, 1, 9, 15, 16, 49, 292, 297):
        extra = {**dict(w.extra), "ctx": position + 8}
        here = Workload(w.op, w.format, w.n, w.k, 8, extra=tuple(sorted(extra.items())))
        verdict = run_program(w, "lanes", program, make_case(here), {"start_pos": position})
        assert verdict.outcome is Outcome.OK, f"{position}: {verdict.reason}"


def test_scores_that_would_overflow():
    assert_right(host(ctx=64, scale=100.0), element=5e-4)  # float32 rounds a score of 3000 to 2e-4


@pytest.mark.parametrize(("heads", "dim", "runs"), [(9, 64, 8), (3, 24, 7), (1, 5, 1), (32, 128, 16)])
def test_runs_are_combined(heads, dim, runs):
    w = HostCombine(heads, dim, runs).workload()
    for params in variants(w)["lanes"].params(w)[::2]:
        assert_right(w, type(default(w))("lanes", tuple(params.items()), ()))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 4), (64, 1), (1000, 3), (2500, 2), (49152, 1)])
def test_the_largest_logit(n, m):
    assert_right(HostPeaks(n).workload(m))
    assert_right(HostArgMax(n).workload(m))


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 8, 32, 96])
@pytest.mark.parametrize("seen", [1, 100, 512, 4096, 1 << 20])
def test_the_number_of_runs(seen, kv_heads):
    found = splits(seen, kv_heads)
    assert found & (found - 1) == 0
    assert found == 1 or (found * kv_heads <= MOST_SLICES and found * 128 <= seen)


def test_what_has_no_kernel():
    with pytest.raises(KernelError, match="splits must be 1 to 64"):
        operands(host(splits=65))
    with pytest.raises(KernelError, match="one token, not 2"):
        operands(HostDecode(4, 2, 8, 8, 9, 9).workload(2))
