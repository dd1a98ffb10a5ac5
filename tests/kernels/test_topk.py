"""Routing against the float64 reference: gatings, bias, groups and ties, at odd numbers of experts."""

import random

import numpy as np
import pytest
from support.emulated import run_emulated
from support.kernel_runs import backend, compiled, device, run, schedule
from support.random_schedules import counts, random_schedules
from support.tiers import few_of
from support.warp_emulator import COMPILER
from tinygrad import Tensor, TinyJit

from db.records import Outcome, Workload
from kernels.api.router import topk
from kernels.ops.registry import KernelError, variants
from kernels.ops.registry import backend as written_for
from kernels.ops.topk.spec import TopK
from kernels.serve import defaults
from kernels.serve.sink import applies


def routing(experts, used, m=1, gating="softmax", dtype="float32", **fields):
    return TopK(experts, used, gating, **fields).workload(m, dtype)


GROUPED = {"groups": 4, "used_groups": 2}
WORKLOADS = (
    routing(8, 2, norm=True),  # mixtral
    routing(60, 4, 3),  # qwen2moe
    routing(64, 6, 8, scale=16.0),
    routing(128, 8, 1, norm=True),  # qwen3moe
    routing(32, 4, 3, "softmax_weight"),  # gpt-oss
    routing(256, 8, 1, "sigmoid", bias=True, norm=True, scale=2.5, groups=8, used_groups=4),  # deepseek-v3
    routing(128, 8, 3, "sigmoid", bias=True, norm=True),  # glm4moe
    routing(1, 1, 3, "sigmoid"),
    routing(1, 1, 1),
    routing(8, 1),
    routing(8, 8, 3, "softmax_weight"),
    routing(16, 16, 1, norm=True),
    routing(60, 2, 3, "softmax", "float16"),
    routing(64, 6, 2, "sqrt_softplus", bias=True, norm=True),
    routing(31, 3, 2, "softmax", bias=True),
    routing(32, 8, 3, "softmax_weight", bias=True),
    routing(32, 4, 3, "softmax", **GROUPED),
)

TYPICAL = (WORKLOADS[0], WORKLOADS[4], WORKLOADS[5], WORKLOADS[8], WORKLOADS[12])


def assert_right(w, schedule):
    verdict = run(w, schedule)
    assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"
    assert verdict.max_element_error < 2e-6


@pytest.mark.parametrize("w", WORKLOADS, ids=str)
def test_under_every_default(w):
    for choice in defaults.defaults(w, backend()):
        if applies(w, choice, backend()):
            assert_right(w, choice)


@pytest.mark.parametrize(
    "w", few_of([w for w in WORKLOADS if w.n <= 64], lambda w: w in TYPICAL, pytest.mark.nightly), ids=str
)
def test_under_the_heuristic(w):
    for choice in defaults.heuristic(w, written_for(device().renderer)):
        assert_right(w, choice)


@pytest.mark.parametrize(
    "w", [routing(16, 4, 3, norm=True), routing(12, 3, 4, "softmax_weight"), routing(24, 2, 2, bias=True)]
)
@counts(2)
def test_random_schedules(w, count):
    found = random_schedules(w, random.Random(str(w)), opts=2)
    for _ in range(count):
        assert_right(w, next(found))


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize(
    ("w", "variant"),
    few_of(
        [(w, v) for w in WORKLOADS for v in ("warp", "team") if v in variants(w, "CUDA")],
        lambda a: a[0] in TYPICAL[:3],
        pytest.mark.nightly,
    ),
    ids=str,
)
def test_emulated(w, variant, tmp_path):
    chosen = schedule(variant, variants(w, "CUDA")[variant].params(w)[0 if w.m == 1 else -1])
    verdict = run_emulated(w, chosen, tmp_path)
    assert verdict.outcome is Outcome.OK, verdict.reason


def ranked(logits, used):
    """Ids by logit, NaN as minus infinity, of equal ones the lower id."""
    clean = np.where(np.isnan(logits), -np.inf, logits)
    return np.argsort(-clean, axis=1, kind="stable")[:, :used]


@pytest.mark.parametrize("norm", [False, True])
def test_equal_infinite_and_absent_numbers(norm):
    device()
    logits = np.zeros((5, 16), np.float32)
    logits[1, ::3] = 1.0
    logits[1, 4] = -0.0
    logits[2, :] = np.nan
    logits[3, 2:9] = np.nan
    logits[4, 5:], logits[4, :5] = -np.inf, np.arange(5)
    ids, probs = topk(Tensor(logits), 6, norm=norm)
    np.testing.assert_array_equal(ids.numpy(), ranked(logits, 6))
    expected = np.full((2, 6), 1 / 16, np.float32)
    expected[1] = np.exp(1) / (6 * np.exp(1) + 10)
    expected = expected / expected.sum(1, keepdims=True) if norm else expected
    np.testing.assert_allclose(probs.numpy()[:2], expected, rtol=1e-6)


def test_equal_groups_and_experts_of_them():
    device()
    ids, probs = topk(Tensor(np.zeros((1, 12), np.float32)), 4, "sigmoid", groups=4, used_groups=2, scale=3.0)
    assert ids.numpy().tolist() == [[0, 1, 2, 3]]
    np.testing.assert_allclose(probs.numpy(), 1.5, rtol=1e-6)


def test_in_a_captured_function():
    device()
    rng = np.random.default_rng(3)
    logits, bias = rng.standard_normal((4, 2, 16)).astype(np.float32), rng.uniform(0, 1, 16).astype(np.float32)

    @TinyJit
    def route(x, b):
        ids, probs = topk(x.contiguous(), 3, "sigmoid", bias=b, norm=True)
        return ids.realize(), probs.realize()

    for x in logits:
        ids, probs = route(Tensor(x).realize(), Tensor(bias).realize())
        p = 1 / (1 + np.exp(-x.astype(np.float64)))
        expected = np.argsort(-(p + bias), axis=1)[:, :3]
        np.testing.assert_array_equal(ids.numpy(), expected)
        chosen = np.take_along_axis(p, expected, 1)
        np.testing.assert_allclose(probs.numpy(), chosen / chosen.sum(1, keepdims=True), rtol=1e-5)


def test_one_launch_whatever_the_router_does():
    w = routing(256, 8, 1, "sigmoid", bias=True, norm=True, groups=8, used_groups=4)
    choice = next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend()))
    assert compiled(w, choice).uop.arg.name.startswith("topk_f32_256x256_m1_")


def test_with_groups_no_search_starts_from_the_pairs():
    for name in ("CPU", "CPU:X86"):
        assert not variants(routing(32, 4, **GROUPED), name)["pairs"].schedulable
        assert variants(routing(32, 4), name)["pairs"].schedulable


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (routing(8, 9), "9 of 8 experts"),
        (routing(64, 33), "33 of 64 experts"),
        (routing(8, 2, gating="magic"), "no gating 'magic'"),
        (routing(8, 2, scale=-1.0), "scale above 0, saw -1.0"),
        (routing(8, 2, groups=3, used_groups=1), "2 experts of 1 of 3 groups of 8"),
        (routing(8, 2, groups=8, used_groups=2), "2 experts of 2 of 8 groups"),
        (routing(8, 5, groups=4, used_groups=2), "5 experts of 2 of 4 groups"),
        (Workload("topk", "F32", 8, 8), "needs the field experts, a whole number"),
    ],
)
def test_no_kernel(w, message):
    with pytest.raises(KernelError, match=message):
        variants(w)


def test_logits_that_are_none():
    with pytest.raises(ValueError, match="logits has dtype int32"):
        topk(Tensor([[1, 2]], device="CPU"), 1)
