"""The references of `rope_cache_store` and `mla_cache_store`: one head of one token at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from db.records import Workload
from kernels.ops.case import Array, Doubles, Inputs, Truth, Truths
from kernels.ops.linear.reference import activations
from kernels.ops.rope.spec import MlaCacheStore, RopeCacheStore

_BASE = 10000.0


def angles(max_ctx: int, rope: int, factors: Array | None = None) -> tuple[Array, Array]:
    """cos and sin [max_ctx, rope / 2] float32, for the base 10000. factors: divisors of the frequencies, as in
    rope_freqs."""
    frequencies = _BASE ** (-np.arange(0, rope, 2) / rope) / (1.0 if factors is None else factors)
    turns = np.arange(max_ctx)[:, None] * frequencies
    return np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)


def rotate(row: Doubles, cos: Array, sin: Array, mode: str) -> Doubles:
    """The row with its first columns rotated: a pair is a complex number, which is multiplied by cos + i sin."""
    if mode == "none":
        return row
    half, out = len(cos), row.copy()
    for i in range(half):
        a, b = (i, i + half) if mode == "neox" else (2 * i, 2 * i + 1)
        turned = complex(row[a], row[b]) * complex(float(cos[i]), float(sin[i]))
        out[a], out[b] = turned.real, turned.imag
    return out


def rms_norm(row: Doubles, weight: Array, eps: float) -> Doubles:
    normed: Doubles = row / np.sqrt(np.square(row).mean() + eps) * weight.astype(np.float64)
    return normed


def draw_rope_cache_store(w: Workload, rng: np.random.Generator) -> Inputs:
    s = RopeCacheStore.from_workload(w)
    kv_heads, dim, max_ctx = s.kv_heads, s.head_dim, s.max_ctx
    arrays: dict[str, Array] = {
        "k_cache": activations((kv_heads, max_ctx, dim), "float16", rng),
        "v_cache": activations((kv_heads, max_ctx, s.v_head_dim), "float16", rng),
        "qkv": activations((w.m, w.n), w.x_dtype, rng),
    }
    arrays |= _tables(max_ctx, s.rope_dim, s.mode, rng)
    if s.eps is not None:
        arrays |= {name: 1 + activations((dim,), "float32", rng) / 4 for name in ("q_norm", "k_norm")}
    return Inputs(arrays, position=(max_ctx - w.m) // 2)


def rope_cache_store(w: Workload, inputs: Inputs) -> Truths:
    s, arrays = RopeCacheStore.from_workload(w), inputs.arrays
    heads, kv_heads, dim, max_ctx = s.heads, s.kv_heads, s.head_dim, s.max_ctx
    value_dim, mode = s.v_head_dim, s.mode
    q = np.zeros((w.m, heads, dim))
    k_cache = inputs.doubles("k_cache").reshape(kv_heads, max_ctx, dim)
    v_cache = inputs.doubles("v_cache").reshape(kv_heads, max_ctx, value_dim)
    qkv = inputs.doubles("qkv").reshape(w.m, w.n)
    for token in range(w.m):
        row, position = qkv[token], inputs.position + token
        for head in range(heads + kv_heads):
            x = row[head * dim : (head + 1) * dim]
            if s.eps is not None:
                x = rms_norm(x, arrays["q_norm" if head < heads else "k_norm"], s.eps)
            x = _at(arrays, x, mode, position)
            if head < heads:
                q[token, head] = x
            else:
                k_cache[head - heads, position] = x
        v_cache[:, position] = row[(heads + kv_heads) * dim :].reshape(kv_heads, value_dim)
    return {"q": Truth.of(q), "k_cache": Truth.of(k_cache), "v_cache": Truth.of(v_cache)}


def draw_mla_cache_store(w: Workload, rng: np.random.Generator) -> Inputs:
    s = MlaCacheStore.from_workload(w)
    rank, rope, max_ctx = s.kv_lora, s.rope_dim, s.max_ctx
    arrays: dict[str, Array] = {
        "cache": activations((max_ctx, rank + rope), "float16", rng),
        "q": activations((w.m, s.q_row), w.x_dtype, rng),
        "kv": activations((w.m, s.kv_row), w.x_dtype, rng),
        "kv_norm": 1 + activations((rank,), "float32", rng) / 4,
    }
    arrays |= _tables(max_ctx, rope, s.mode, rng)
    return Inputs(arrays, position=(max_ctx - w.m) // 2)


def mla_cache_store(w: Workload, inputs: Inputs) -> Truths:
    s, arrays = MlaCacheStore.from_workload(w), inputs.arrays
    heads, rank, nope, rope = s.heads, s.kv_lora, s.qk_nope, s.rope_dim
    mode, start = s.mode, s.kv_start
    q, rows = (inputs.doubles(name).reshape(w.m, -1) for name in ("q", "kv"))
    q_rope = np.zeros((w.m, heads, rope))
    cache = inputs.doubles("cache").reshape(-1, rank + rope)
    for token in range(w.m):
        position = inputs.position + token
        for head in range(heads):
            of_head = q[token, head * (nope + rope) :][nope : nope + rope]
            q_rope[token, head] = _at(arrays, of_head, mode, position)
        kv = rows[token, start:][: rank + rope]
        latent = rms_norm(kv[:rank], arrays["kv_norm"], s.eps)
        cache[position] = np.concatenate([latent, _at(arrays, kv[rank:], mode, position)])
    return {"q_rope": Truth.of(q_rope), "cache": Truth.of(cache)}


def _at(arrays: Mapping[str, Array], row: Doubles, mode: str, position: int) -> Doubles:
    return row if mode == "none" else rotate(row, arrays["cos"][position], arrays["sin"][position], mode)


def _tables(max_ctx: int, rope: int, mode: str, rng: np.random.Generator) -> dict[str, Array]:
    """Tables of angles with factors on the frequencies, as those of llama3."""
    if mode == "none":
        return {}
    cos, sin = angles(max_ctx, rope, rng.uniform(1, 8, rope // 2))
    return {"cos": cos, "sin": sin}
