"""What the attention ops must compute: softmax over whole rows of scores, one head and run of positions at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from db.records import Workload
from kernels.references.case import Array, Case, Doubles, InputsError, Truth

_NONE = -1e30  # the logarithm of a run without positions


def flash(w: Workload, rng: np.random.Generator) -> Case:
    """flash_decode, and flash_prefill of many tokens."""
    e, tokens = dict(w.extra), _tokens(w)
    heads, kv_heads, max_ctx = int(e["heads"]), int(e["kv_heads"]), int(e["max_ctx"])
    arrays = {
        "q": _normal(rng, (*tokens, heads, w.k), w.x_dtype),
        "k": _normal(rng, (kv_heads, max_ctx, w.k), "float16"),
        "v": _normal(rng, (kv_heads, max_ctx, int(e["v_head_dim"])), "float16"),
    }
    if e.get("sinks"):
        arrays["sinks"] = _normal(rng, (heads,), "float32")
    k, v = ([arrays[name][head * kv_heads // heads] for head in range(heads)] for name in ("k", "v"))
    return (_many if tokens else _one)(w, arrays, arrays["q"], k, v, arrays.get("sinks"))


def mla(w: Workload, rng: np.random.Generator) -> Case:
    """mla_decode, and mla_prefill of many tokens."""
    e, tokens = dict(w.extra), _tokens(w)
    heads, rank, rope = int(e["heads"]), int(e["kv_lora"]), int(e["rope_dim"])
    arrays = {
        "q_latent": _normal(rng, (*tokens, heads, rank), w.x_dtype),
        "q_rope": _normal(rng, (*tokens, heads, rope), w.x_dtype),
        "cache": _normal(rng, (int(e["max_ctx"]), rank + rope), "float16"),
    }
    q = np.concatenate([arrays["q_latent"], arrays["q_rope"]], axis=-1)
    cache = arrays["cache"]
    return (_many if tokens else _one)(w, arrays, q, [cache] * heads, [cache[:, :rank]] * heads, None)


def flash_combine(w: Workload, rng: np.random.Generator) -> Case:
    e = dict(w.extra)
    heads, dim, splits = int(e["heads"]), int(e["v_head_dim"]), int(e["splits"])
    parts = rng.standard_normal((splits, heads, dim), np.float32)
    lse = (3 * rng.standard_normal((splits, heads))).astype(np.float32)
    lse[rng.random((splits, heads)) < 0.2] = _NONE
    lse[0] = np.abs(lse[0]) % 10
    chances = np.exp2(lse.astype(np.float64))
    out = (parts.astype(np.float64) * chances[:, :, None]).sum(0) / chances.sum(0)[:, None]
    return Case({"parts": parts, "lse": lse}, {"out": Truth.of(out)})


def _tokens(w: Workload) -> tuple[int, ...]:
    return (w.m,) if w.op.endswith("prefill") else ()


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    if dtype not in ("float32", "float16"):
        raise InputsError(f"{dtype!r}: only float32 and float16 values can be made")
    return rng.standard_normal(shape, np.float32).astype(dtype)


def attend_rows(
    q: Array, k: Array, v: Array, scale: float, cap: float | None = None, sink: float | None = None
) -> tuple[Doubles, float]:
    """One query [columns] over rows of k and v: the weighted mean of v's, and log2 of the softmax's denominator."""
    scores = k.astype(np.float64) @ q.astype(np.float64) * scale
    if cap is not None:
        scores = cap * np.tanh(scores / cap)
    sinks = [] if sink is None else [sink]
    top = max([scores.max(), *sinks])
    chances = np.exp(scores - top)
    total = chances.sum() + sum(np.exp(s - top) for s in sinks)
    return chances @ v.astype(np.float64) / total, float((top + np.log(total)) / np.log(2))


def _settings(w: Workload) -> tuple[int, int, float, float | None]:
    """ctx, window, scale, softcap."""
    e = dict(w.extra)
    cap = None if e.get("softcap", "none") == "none" else float(e["softcap"])
    return int(e["ctx"]), int(e.get("window", 0)), float(e.get("scale", 1)), cap


def _typical(out: Doubles) -> Doubles:
    """What is typical for a mean is what means are in general, however near to zero one comes: [all but the last]."""
    return np.full(out.shape[:-1], out.std() + 1e-9)


def _one(
    w: Workload, arrays: dict[str, Array], q: Array, k: Sequence[Array], v: Sequence[Array], sinks: Array | None
) -> Case:
    """q [heads, columns]; k, v a matrix [positions, columns] for each head; seen are the last `window` of the first
    `ctx` positions."""
    ctx, window, scale, cap = _settings(w)
    splits = int(dict(w.extra).get("splits", 1))
    first = max(0, ctx - window) if window else 0
    run = -(-(ctx - first) // splits)
    out = np.zeros((splits, len(q), v[0].shape[1]))
    lse = np.full((splits, len(q)), _NONE)
    for split in range(splits):
        start, stop = first + split * run, min(first + (split + 1) * run, ctx)
        for head in range(len(q)) if start < stop else ():
            sink = None if sinks is None or split > 0 else float(sinks[head])
            rows = slice(start, stop)
            out[split, head], lse[split, head] = attend_rows(q[head], k[head][rows], v[head][rows], scale, cap, sink)
    large = np.where(lse > _NONE, np.abs(lse), 0.0).mean(1) + 1.0
    return Case(arrays, {"out": Truth.of(out, _typical(out)), "lse": Truth.of(lse, large)})


def _many(
    w: Workload, arrays: dict[str, Array], q: Array, k: Sequence[Array], v: Sequence[Array], sinks: Array | None
) -> Case:
    """q [tokens, heads, columns]; the last token is at position ctx - 1, and each sees the last `window` positions up
    to its own."""
    ctx, window, scale, cap = _settings(w)
    out = np.zeros((*q.shape[:2], v[0].shape[1]))
    own, position = np.arange(ctx - len(q), ctx)[:, None], np.arange(ctx)
    seen = (position <= own) & (position > own - window if window else True)
    for head in range(q.shape[1]):
        scores = q[:, head].astype(np.float64) @ k[head][:ctx].astype(np.float64).T * scale
        if cap is not None:
            scores = cap * np.tanh(scores / cap)
        sink = -np.inf if sinks is None else float(sinks[head])
        top = np.maximum(np.where(seen, scores, -np.inf).max(1, keepdims=True), sink)
        chances = np.where(seen, np.exp(scores - top), 0.0)
        total = chances.sum(1, keepdims=True) + np.exp(sink - top)
        out[:, head] = chances @ v[head][:ctx].astype(np.float64) / total
    return Case(arrays, {"out": Truth.of(out, _typical(out))})
