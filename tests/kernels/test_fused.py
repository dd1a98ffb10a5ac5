"""The fused ops over Tensors against numpy, in a captured function too."""

import itertools

import numpy as np
import pytest
from support.kernel_runs import backend, device
from support.tiers import few_of
from tinygrad import Tensor, TinyJit

from kernels import PackedWeight, backends
from kernels.api import fused
from kernels.formats import reference
from kernels.ops.linear import tensor_core
from kernels.ops.linear.fused_reference import gated

RNG = np.random.default_rng(7)
K, N, EXPERTS, USED = 64, 24, 5, 3


def packed(format, n, k=K):
    device()
    raw = reference.random_blocks(format, n, k, RNG)
    return PackedWeight.from_blocks(raw, format, (n, k)), reference.dequantize(raw, format, (n, k)).astype(np.float64)


def values(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


def assert_close(got, expected, limit=1e-5):
    assert np.linalg.norm(got - expected) <= limit * np.linalg.norm(expected)


def normed(x, norm, eps):
    return x / np.sqrt(np.square(x.astype(np.float64)).mean(-1, keepdims=True) + eps) * norm


def test_linear_with_bias_and_residual():
    (w, dense), x, bias, residual = packed("Q8_0", N), values(2, K), values(N), values(2, N)
    expected = x @ dense.T + bias + residual
    assert_close(fused.linear_add(Tensor(x), w, Tensor(residual), Tensor(bias)).numpy(), expected)
    assert_close(fused.linear_add(Tensor(x), w).numpy(), x @ dense.T)


def test_rmsnorm_and_parts_of_two_formats():
    (a, dense_a), (b, dense_b), x, norm = packed("Q4_0", 16), packed("Q8_0", 8), values(1, K), values(K)
    got = fused.rmsnorm_linear(Tensor(x), Tensor(norm), [a, b], 1e-5).numpy()
    assert_close(got, normed(x, norm, 1e-5) @ np.concatenate([dense_a, dense_b]).T)
    with pytest.raises(ValueError, match="stack them"):
        fused.rmsnorm_linear(Tensor(x), Tensor(norm), [a, a], 1e-5)


@pytest.mark.parametrize("act", few_of(["silu", "gelu"], lambda act: act == "gelu"))
def test_gate_and_up(act):
    (g, gate), (u, up), x, norm = packed("Q4_0", N), packed("Q8_0", N), values(1, K), values(K)
    inside = normed(x, norm, 1e-6)
    expected = gated(act, inside @ gate.T, inside @ up.T)
    assert_close(fused.gate_up(Tensor(x), g, u, act, Tensor(norm), 1e-6).numpy(), expected)
    assert_close(fused.gate_up(Tensor(x), g, u, act).numpy(), gated(act, x @ gate.T, x @ up.T))


def together(which, dense, x, ids, probs, residual):
    """Token by token, as `mixture` has it."""
    out = residual.astype(np.float64)
    for token, slot in np.ndindex(ids.shape):
        gate, up, down = (w[ids[token, slot]] for w in dense)
        out[token] += probs[token, slot] * (down @ gated(which, gate @ x[token], up @ x[token]))
    return out


CHOICES = {
    "any": lambda m: np.stack([RNG.permutation(EXPERTS)[:USED] for _ in range(m)]),
    "the same for all": lambda m: np.tile([4, 0, 2], (m, 1)),
    "one expert for most": lambda m: np.stack([[3, *RNG.permutation([0, 1, 4])[:2]] for _ in range(m)]),
}


@pytest.mark.parametrize("m", few_of([32, 512], lambda m: m == 32))
@pytest.mark.parametrize("choice", CHOICES)
def test_many_tokens_of_a_mixture(m, choice):
    """Whatever experts they choose: several tiles of one, tiles that are not full, and experts that nobody uses."""
    weights = [packed("Q8_0", EXPERTS * n, k) for n, k in ((32, K), (32, K), (N, 32))]
    dense = [w.reshape(EXPERTS, -1, w.shape[-1]) for _, w in weights]
    # some rows of the weights are large, and a gate multiplies two of them: more than a half holds
    x, residual, probs = values(m, K) / 16, values(m, N), RNG.uniform(0, 1, (m, USED)).astype(np.float32)
    ids = CHOICES[choice](m).astype(np.int32)
    got = fused.mixture(
        Tensor(x), Tensor(ids), Tensor(probs), *(w for w, _ in weights), EXPERTS, "gelu", Tensor(residual)
    )
    # where there are tensor cores, many tokens are multiplied in parts
    limit = max(tensor_core.TOLERANCES.values()) if backends.find(backend()).tensor_core else 1e-5
    assert_close(got.numpy(), together("gelu", dense, x, ids, probs, residual), limit)


def test_experts_in_a_captured_function():
    (g, gate), (u, up), (d, down) = (
        packed("Q8_0", EXPERTS * N),
        packed("Q8_0", EXPERTS * N),
        packed("Q8_0", EXPERTS * K, 32),
    )
    dense = [w.reshape(EXPERTS, -1, w.shape[-1]) for w in (gate, up, down)]

    @TinyJit
    def block(x: Tensor, ids: Tensor, probs: Tensor) -> Tensor:
        hidden = fused.expert_gate_up(x, ids, g, u, EXPERTS).pad((None, None, (0, 32 - N)))
        return fused.expert_down(hidden, ids, probs, d, EXPERTS, residual=x).realize()

    for _ in range(4):
        x, probs = values(1, K), RNG.uniform(0, 1, (1, USED)).astype(np.float32)
        ids = RNG.permutation(EXPERTS)[None, :USED].astype(np.int32)
        expected = x[0].astype(np.float64)
        for slot, expert in enumerate(ids[0]):
            hidden = np.zeros(32)
            hidden[:N] = gated("silu", dense[0][expert] @ x[0], dense[1][expert] @ x[0])
            expected = expected + probs[0, slot] * (dense[2][expert] @ hidden)
        assert_close(block(Tensor(x).realize(), Tensor(ids).realize(), Tensor(probs).realize()).numpy()[0], expected)


def test_a_linear_for_each_head():
    (w, dense), x = packed("Q8_0", 3 * N), values(1, 3, K)
    expected = np.einsum("hnk,mhk->mhn", dense.reshape(3, N, K), x)
    assert_close(fused.head_linear(Tensor(x), w).numpy(), expected)


def test_a_linear_for_each_head_of_wider_rows():
    """Each head reads the first K of its K + 5 columns; a row has 3 columns more than its heads."""
    (w, dense), x = packed("Q8_0", 3 * N), values(2, 3 * (K + 5) + 3)
    heads = x[:, : 3 * (K + 5)].reshape(2, 3, K + 5)[:, :, :K]
    expected = np.einsum("hnk,mhk->mhn", dense.reshape(3, N, K), heads)
    assert_close(fused.head_linear(Tensor(x), w, heads=3, step=K + 5).numpy(), expected)


@pytest.mark.parametrize(
    ("act", "biased"), few_of(itertools.product(("silu", "gelu"), (False, True)), lambda a: a == ("gelu", True))
)
def test_a_linear_behind_a_gate(act, biased):
    (w, dense), x, gate, bias = packed("Q5_0", N), values(4, K), values(4, N), values(N)
    expected = gated(act, gate.astype(np.float64), x @ dense.T + bias * biased)
    got = fused.linear_gate(Tensor(x), w, Tensor(gate), act, Tensor(bias) if biased else None)
    assert_close(got.numpy(), expected)


def test_a_norm_reads_the_first_columns_of_wider_rows():
    (w, dense), x, norm = packed("Q4_0", N), values(2, K + 7), values(K)
    got = fused.rmsnorm_linear(Tensor(x), Tensor(norm), [w], 1e-5).numpy()
    assert_close(got, normed(x[:, :K], norm, 1e-5) @ dense.T)


@pytest.mark.parametrize("used", [1, USED])
def test_a_weighted_sum_of_experts(used):
    x, probs, residual = values(8, used, N), values(8, used), values(8, N)
    expected = np.einsum("mu,mun->mn", probs.astype(np.float64), x)
    assert_close(fused.expert_sum(Tensor(x), Tensor(probs)).numpy(), expected)
    assert_close(fused.expert_sum(Tensor(x), Tensor(probs), Tensor(residual)).numpy(), expected + residual)


def test_what_is_refused():
    w, _ = packed("Q8_0", N)
    with pytest.raises(ValueError, match="expected one of"):
        fused.gate_up(Tensor(values(3, K)), w, w)
    with pytest.raises(ValueError, match="cast it with"):
        fused.linear_add(Tensor(values(1, K)).bfloat16(), w)
