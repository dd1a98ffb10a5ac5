"""Norms, embeddings and the next token against the float64 reference, at odd sizes."""

import random

import numpy as np
import pytest
from support.emulated import run_emulated
from support.kernel_runs import backend, device, run, schedule
from support.random_schedules import counts, random_schedules
from support.tiers import few_of
from support.warp_emulator import COMPILER
from tinygrad import Tensor, TinyJit

from db.records import Outcome, Workload
from kernels import PackedWeight
from kernels.api import small
from kernels.formats import FORMATS, get_format, reference
from kernels.ops.argmax.spec import ArgMax
from kernels.ops.embed.spec import Embed
from kernels.ops.norm.spec import RmsNorm, RmsNormAdd
from kernels.ops.registry import KernelError, nbytes_moved, variants
from kernels.serve import defaults
from kernels.serve.sink import applies


def norm(n, m=1, op="rmsnorm", dtype="float32", heads=1):
    return {"rmsnorm": RmsNorm, "rmsnorm_add": RmsNormAdd}[op](n, 1e-6, heads).workload(m, dtype)


def largest(n, m=1, dtype="float32"):
    return ArgMax(n).workload(m, dtype)


def lookup(format, n, blocks, m, scale=1.0, dtype="float32"):
    block = get_format(format).block
    k = blocks * (31 if block == 1 else block)
    return Embed(format, n, k, scale).workload(m, dtype)


NORMS = (
    norm(1),
    norm(31, 3),
    norm(4097),
    norm(2048, 8, "rmsnorm_add"),
    norm(512, 3, heads=4),
    norm(96, 2, "rmsnorm_add", "float16", heads=3),
    norm(64, 4, dtype="float16"),
)
LARGEST = (largest(1), largest(31, 3), largest(4097), largest(4096, 8), largest(50000), largest(333, 3, "float16"))
# float16: numbers that stay normal, since a device without halves takes denormal ones for zero
LOOKUPS = (
    *(lookup(f, 21, 2, 3, 1.5) for f in FORMATS),
    *(lookup(f, 5, 1, 2, 1000.0, "float16") for f in ("Q8_0", "Q6_K")),
    lookup("Q4_0", 1, 1, 8),
    lookup("Q5_1", 1500, 3, 1),
)


def assert_right(w, schedule):
    verdict = run(w, schedule)
    assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"
    return verdict


def assert_emulated(w, variant, folder):
    chosen = schedule(variant, variants(w, "CUDA")[variant].params(w)[0 if w.m == 1 else -1])
    verdict = run_emulated(w, chosen, folder)
    assert verdict.outcome is Outcome.OK, f"{w} {chosen}: {verdict.reason}"


@pytest.mark.parametrize(
    "w", few_of([*NORMS, *LARGEST, *LOOKUPS], lambda w: w not in LOOKUPS or w in LOOKUPS[::4]), ids=str
)
def test_under_the_first_default_that_applies(w):
    assert_right(w, next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend())))


@pytest.mark.parametrize("w", [*NORMS, *LARGEST, *LOOKUPS[-8:], lookup("IQ3_S", 3, 1, 1)], ids=str)
def test_under_the_heuristic(w):
    for choice in defaults.heuristic(w, backend()):
        assert_right(w, choice)


@pytest.mark.parametrize(
    "w",
    [
        norm(96, 3),
        norm(64, 2, "rmsnorm_add", heads=2),
        largest(96, 3),
        lookup("Q4_0", 7, 2, 4),
        lookup("F16", 7, 2, 3),
    ],
    ids=str,
)
@counts(4)
def test_random_schedules(w, count):
    found = random_schedules(w, random.Random(str(w)), opts=2)
    for _ in range(count):
        assert_right(w, next(found))


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize("w", NORMS, ids=str)
@pytest.mark.parametrize("variant", ["warp", "team"])
def test_emulated_norms(w, variant, tmp_path):
    assert_emulated(w, variant, tmp_path)


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize("w", LARGEST, ids=str)
def test_emulated_argmax(w, tmp_path):
    assert_emulated(w, "team", tmp_path)


def test_the_largest_of_odd_numbers():
    device()
    logits = np.zeros((5, 37), np.float32)
    logits[1] = np.nan
    logits[2, 3:] = -np.inf
    logits[2, :3] = np.nan
    logits[3, [9, 30]] = np.inf
    logits[4, 20:] = np.nan
    logits[4, 7] = 2.0
    assert small.argmax(Tensor(logits)).numpy().tolist() == [[0], [0], [0], [9], [7]]


def test_only_the_rows_that_are_asked_for_count():
    w = lookup("Q4_K", 128256, 16, 1)
    assert nbytes_moved(w) == 4096 // 256 * 144 + 4 * 4096 + 4


def test_a_token_in_a_captured_function():
    device()
    rng = np.random.default_rng(2)
    n, k = 50, 64
    raw = reference.random_blocks("Q8_0", n, k, rng)
    table = reference.dequantize(raw, "Q8_0", (n, k)).astype(np.float64)
    w, weight = PackedWeight.from_blocks(raw, "Q8_0", (n, k)), rng.uniform(1, 2, k).astype(np.float32)

    @TinyJit
    def step(ids, weight):
        x = small.embed(ids, w, scale=8.0)
        y = small.rmsnorm(x, weight, 1e-5, residual=x)
        return y.realize(), small.argmax(y).realize()

    for ids in ([0, 49], [7, 7], [49, 3], [-5, 99]):
        y, best = step(Tensor(ids, dtype="int32").realize(), Tensor(weight).realize())
        x = table[np.clip(ids, 0, n - 1)] * 8.0
        expected = x + x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5) * weight
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5)
        assert best.numpy().ravel().tolist() == expected.argmax(1).tolist()


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (Workload("rmsnorm", "F32", 64, 64), "needs the field eps"),
        (norm(64, heads=3), "heads=3"),
        (norm(64, dtype="int8"), "int8"),
        (Workload("rmsnorm", "F16", 64, 64, extra=(("eps", 1e-6),)), "F16"),
        (Workload("argmax", "F32", 64, 32), "k is 32, but 64 follows"),
        (lookup("F16", 8, 1, 1, scale=-1.0), "scale above 0, saw -1.0"),
    ],
)
def test_no_kernel(w, message):
    with pytest.raises(KernelError, match=message):
        variants(w)


@pytest.mark.parametrize(
    "call",
    [
        lambda: small.rmsnorm(Tensor([[1.0, 2.0]], device="CPU"), Tensor([1.0], device="CPU"), 1e-5),
        lambda: small.argmax(Tensor([1.0], device="CPU")),
        lambda: small.embed(Tensor([1.0], device="CPU"), None),
    ],
)
def test_arguments_that_do_not_fit(call):
    with pytest.raises(ValueError, match=r"do not fit|is not \[m, n\]|expected int32"):
        call()
