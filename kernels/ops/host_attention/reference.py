"""The references of attention on a host: those of `flash_decode`, `flash_prefill` and `rope_cache_store`, with the
cache of keys in tiles and runs of other lengths."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from db.records import Workload
from kernels.ops.attention import reference as attention
from kernels.ops.attention.spec import Flash, FlashPrefill
from kernels.ops.case import Array, Inputs, Truth, Truths
from kernels.ops.host_attention.spec import RUN, TILE, HostCacheStore, HostDecode
from kernels.ops.rope import reference as rope
from kernels.ops.rope.spec import RopeCacheStore

_NONE = -1e30  # log2 of the softmax denominator of a run without positions


def to_tiles(cache: Array) -> Array:
    """[kv_heads, max_ctx, head_dim] -> [kv_heads, tiles, head_dim, TILE]. Positions beyond max_ctx are NaN."""
    heads, rows, dim = cache.shape
    padded = np.pad(cache, ((0, 0), (0, -rows % TILE), (0, 0)), constant_values=np.nan)
    return np.ascontiguousarray(padded.reshape(heads, -1, TILE, dim).transpose(0, 1, 3, 2))


def from_tiles(tiles: Array, rows: int) -> Array:
    """The first `rows` positions of a cache in tiles: [kv_heads, rows, head_dim]"""
    heads, _, dim, _ = tiles.shape
    return tiles.transpose(0, 1, 3, 2).reshape(heads, -1, dim)[:, :rows]


def draw_flash(w: Workload, rng: np.random.Generator) -> Inputs:
    """The inputs of the same attention elsewhere. Whatever lies beyond the last position is NaN."""
    inputs, s = attention.draw_flash(w, rng), Flash.from_workload(w)
    k, v = (inputs.arrays[name].copy() for name in ("k", "v"))
    k[:, s.ctx :], v[:, s.ctx :] = np.nan, np.nan
    return replace(inputs, arrays={**inputs.arrays, "k": to_tiles(k), "v": v})


def flash(w: Workload, inputs: Inputs) -> Truths:
    s = Flash.from_workload(w)
    k = from_tiles(inputs.arrays["k"].reshape(s.kv_heads, -1, s.head_dim, TILE), s.max_ctx)
    if isinstance(s, HostDecode):
        return _decode(s, inputs, k)
    plain = FlashPrefill(**{f.name: getattr(s, f.name) for f in fields(s)})
    arrays = {**inputs.arrays, "k": k}
    return attention.flash(plain.workload(w.m, w.x_dtype, w.out_dtype), replace(inputs, arrays=arrays))


def _decode(s: HostDecode, inputs: Inputs, k: Array) -> Truths:
    q = inputs.arrays["q"].reshape(s.heads, s.head_dim)
    v = inputs.arrays["v"].reshape(s.kv_heads, s.max_ctx, s.v_head_dim)
    ctx = inputs.position + 1
    first = max(0, ctx - s.window) if s.window else 0
    origin = first // TILE * TILE
    run = -(-(ctx - origin) // (RUN * s.splits)) * RUN
    out, lse = np.zeros((s.splits, s.heads, s.v_head_dim)), np.full((s.splits, s.heads), _NONE)
    sinks = inputs.arrays.get("sinks")
    for split in range(s.splits):
        rows = slice(max(first, origin + split * run), min(ctx, origin + (split + 1) * run))
        for head in range(s.heads) if rows.start < rows.stop else ():
            kv = head * s.kv_heads // s.heads
            sink = None if sinks is None or split > 0 else float(sinks[head])
            out[split, head], lse[split, head] = attention.attend_rows(
                q[head], k[kv, rows], v[kv, rows], s.scale, s.softcap, sink
            )
    large = np.where(lse > _NONE, np.abs(lse), 0.0).mean(1) + 1.0
    return {"out": Truth.of(out, np.full(out.shape[:-1], out.std() + 1e-9)), "lse": Truth.of(lse, large)}


def draw_cache_store(w: Workload, rng: np.random.Generator) -> Inputs:
    inputs = rope.draw_rope_cache_store(w, rng)
    return replace(inputs, arrays={**inputs.arrays, "k_cache": np.nan_to_num(to_tiles(inputs.arrays["k_cache"]))})


def cache_store(w: Workload, inputs: Inputs) -> Truths:
    s, tiles = HostCacheStore.from_workload(w), inputs.arrays["k_cache"]
    tiles = tiles.reshape(s.kv_heads, -1, s.head_dim, TILE)
    whole = tiles.shape[1] * TILE
    plain = RopeCacheStore(**{f.name: getattr(s, f.name) for f in fields(s)})
    arrays = {**inputs.arrays, "k_cache": from_tiles(tiles, s.max_ctx)}
    found = rope.rope_cache_store(plain.workload(w.m, w.x_dtype, w.out_dtype), replace(inputs, arrays=arrays))
    rows = np.zeros((s.kv_heads, whole, s.head_dim))
    rows[:, : s.max_ctx] = found["k_cache"].reference.reshape(s.kv_heads, s.max_ctx, s.head_dim)
    return {**found, "k_cache": Truth.of(to_tiles(rows))}
