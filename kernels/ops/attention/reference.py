"""The references of the attention ops: a softmax over whole rows of scores, for one head and one run of positions at a
time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from db.records import Workload
from kernels.ops.attention.spec import Flash, FlashCombine, FlashDecode, Mla, MlaDecode
from kernels.ops.case import Array, Doubles, Inputs, Truth, Truths
from kernels.ops.linear.reference import activations

_NONE = -1e30  # log2 of the softmax denominator of a run without positions


def draw_flash(w: Workload, rng: np.random.Generator) -> Inputs:
    """Inputs of flash_decode and of flash_prefill."""
    s = Flash.from_workload(w)
    arrays = {
        "q": activations((*_tokens(w), s.heads, s.head_dim), w.x_dtype, rng),
        "k": activations((s.kv_heads, s.max_ctx, s.head_dim), "float16", rng),
        "v": activations((s.kv_heads, s.max_ctx, s.v_head_dim), "float16", rng),
    }
    if s.sinks:
        arrays["sinks"] = activations((s.heads,), "float32", rng)
    return Inputs(arrays, position=s.ctx - w.m)


def flash(w: Workload, inputs: Inputs) -> Truths:
    s, arrays = Flash.from_workload(w), inputs.arrays
    caches = (arrays[name].reshape(s.kv_heads, s.max_ctx, -1) for name in ("k", "v"))
    k, v = ([cache[head * s.kv_heads // s.heads] for head in range(s.heads)] for cache in caches)
    q, seen = arrays["q"].reshape(*_tokens(w), s.heads, s.head_dim), _Seen(s.scale, s.window, s.softcap)
    if isinstance(s, FlashDecode):
        return _decode(seen, s.splits, inputs.position, q, k, v, arrays.get("sinks"))
    return _prefill(seen, inputs.position, q, k, v, arrays.get("sinks"))


def draw_mla(w: Workload, rng: np.random.Generator) -> Inputs:
    """Inputs of mla_decode and of mla_prefill."""
    s, tokens = Mla.from_workload(w), _tokens(w)
    arrays = {
        "q_latent": activations((*tokens, s.heads, s.kv_lora), w.x_dtype, rng),
        "q_rope": activations((*tokens, s.heads, s.rope_dim), w.x_dtype, rng),
        "cache": activations((s.max_ctx, s.kv_lora + s.rope_dim), "float16", rng),
    }
    return Inputs(arrays, position=s.ctx - w.m)


def mla(w: Workload, inputs: Inputs) -> Truths:
    s = Mla.from_workload(w)
    parts = (inputs.arrays[name].reshape(*_tokens(w), s.heads, -1) for name in ("q_latent", "q_rope"))
    q, cache = np.concatenate([*parts], axis=-1), inputs.arrays["cache"].reshape(s.max_ctx, -1)
    k, v, seen = [cache] * s.heads, [cache[:, : s.kv_lora]] * s.heads, _Seen(s.scale)
    if isinstance(s, MlaDecode):
        return _decode(seen, s.splits, inputs.position, q, k, v, None)
    return _prefill(seen, inputs.position, q, k, v, None)


def draw_flash_combine(w: Workload, rng: np.random.Generator) -> Inputs:
    s = FlashCombine.from_workload(w)
    heads, dim, splits = s.heads, s.v_head_dim, s.splits
    parts = rng.standard_normal((splits, heads, dim), np.float32)
    lse = (3 * rng.standard_normal((splits, heads))).astype(np.float32)
    lse[rng.random((splits, heads)) < 0.2] = _NONE
    lse[0] = np.abs(lse[0]) % 10
    return Inputs({"parts": parts, "lse": lse})


def flash_combine(w: Workload, inputs: Inputs) -> Truths:
    s = FlashCombine.from_workload(w)
    heads, dim, splits = s.heads, s.v_head_dim, s.splits
    lse = inputs.doubles("lse").reshape(splits, heads)
    chances = np.exp2(lse - lse.max(0))
    parts = inputs.doubles("parts").reshape(splits, heads, dim)
    return {"out": Truth.of((parts * chances[:, :, None]).sum(0) / chances.sum(0)[:, None])}


def _tokens(w: Workload) -> tuple[int, ...]:
    return (w.m,) if w.op.endswith("prefill") else ()


def attend_rows(
    q: Array, k: Array, v: Array, scale: float, cap: float | None = None, sink: float | None = None
) -> tuple[Doubles, float]:
    """The attention of one query [columns] over rows of k and v: the weighted mean of the rows of v, and log2 of the
    softmax denominator."""
    scores = k.astype(np.float64) @ q.astype(np.float64) * scale
    if cap is not None:
        scores = cap * np.tanh(scores / cap)
    sinks = [] if sink is None else [sink]
    top = max([scores.max(), *sinks])
    chances = np.exp(scores - top)
    total = chances.sum() + sum(np.exp(s - top) for s in sinks)
    return chances @ v.astype(np.float64) / total, float((top + np.log(total)) / np.log(2))


@dataclass(frozen=True)
class _Seen:
    """The fields of `Flash` that decide how a query scores its keys."""

    scale: float
    window: int = 0
    cap: float | None = None


def _typical(out: Doubles) -> Doubles:
    """The typical size of each row of `out`: the standard deviation of all values, even where a row is close to
    zero."""
    return np.full(out.shape[:-1], out.std() + 1e-9)


def _decode(
    of: _Seen, splits: int, position: int, q: Array, k: Sequence[Array], v: Sequence[Array], sinks: Array | None
) -> Truths:
    """Attention of one token. q: [heads, columns]; k and v: a matrix [positions, columns] for each head. The token sees
    the last `window` positions up to its own."""
    ctx = position + 1
    first = max(0, ctx - of.window) if of.window else 0
    run = -(-(ctx - first) // splits)
    out = np.zeros((splits, len(q), v[0].shape[1]))
    lse = np.full((splits, len(q)), _NONE)
    for split in range(splits):
        start, stop = first + split * run, min(first + (split + 1) * run, ctx)
        for head in range(len(q)) if start < stop else ():
            sink = None if sinks is None or split > 0 else float(sinks[head])
            rows = slice(start, stop)
            out[split, head], lse[split, head] = attend_rows(
                q[head], k[head][rows], v[head][rows], of.scale, of.cap, sink
            )
    large = np.where(lse > _NONE, np.abs(lse), 0.0).mean(1) + 1.0
    return {"out": Truth.of(out, _typical(out)), "lse": Truth.of(lse, large)}


def _prefill(of: _Seen, position: int, q: Array, k: Sequence[Array], v: Sequence[Array], sinks: Array | None) -> Truths:
    """Attention of a prompt. q: [tokens, heads, columns]. The first token is at `position`, and each token sees the
    last `window` positions up to its own."""
    ctx = position + len(q)
    out = np.zeros((*q.shape[:2], v[0].shape[1]))
    own, there = np.arange(position, ctx)[:, None], np.arange(ctx)
    seen = (there <= own) & (there > own - of.window if of.window else True)
    for head in range(q.shape[1]):
        scores = q[:, head].astype(np.float64) @ k[head][:ctx].astype(np.float64).T * of.scale
        if of.cap is not None:
            scores = of.cap * np.tanh(scores / of.cap)
        sink = -np.inf if sinks is None else float(sinks[head])
        top = np.maximum(np.where(seen, scores, -np.inf).max(1, keepdims=True), sink)
        chances = np.where(seen, np.exp(scores - top), 0.0)
        total = chances.sum(1, keepdims=True) + np.exp(sink - top)
        out[:, head] = chances @ v[head][:ctx].astype(np.float64) / total
    return {"out": Truth.of(out, _typical(out))}
