"""Workloads of the ops around attention, small, each with one thing changed by keyword."""

from __future__ import annotations

from typing import Any

from db.records import Workload
from kernels.ops.attention.spec import FlashCombine, FlashDecode, FlashPrefill, MlaDecode, MlaPrefill
from kernels.ops.host_attention.spec import HostCacheStore, HostDecode, HostPrefill
from kernels.ops.rope.spec import MlaCacheStore, RopeCacheStore


def _flash(heads: int, kv_heads: int, dim: int, ctx: int, value_dim: int, more: dict[str, Any]) -> dict[str, Any]:
    """A cache with a few rows more than are used."""
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": dim, "v_head_dim": value_dim or dim, "ctx": ctx}
    return {**sizes, "max_ctx": ctx + 5, "scale": dim**-0.5, **more}


def flash(
    heads: int = 4, kv_heads: int = 2, dim: int = 32, ctx: int = 31, value_dim: int = 0, **more: object
) -> Workload:
    return FlashDecode(**_flash(heads, kv_heads, dim, ctx, value_dim, more)).workload()


def flash_many(
    m: int, heads: int = 4, kv_heads: int = 2, dim: int = 32, ctx: int = 0, value_dim: int = 0, **more: object
) -> Workload:
    """`flash_prefill` of m tokens, by default from the first position on."""
    return FlashPrefill(**_flash(heads, kv_heads, dim, ctx or m, value_dim, more)).workload(m)


def mla(heads: int = 4, rank: int = 32, rope: int = 16, ctx: int = 31, splits: int = 1) -> Workload:
    return MlaDecode(heads, rank, rope, ctx, ctx + 3, 0.11, splits).workload()


def mla_many(m: int, heads: int = 4, rank: int = 32, rope: int = 16, ctx: int = 0) -> Workload:
    ctx = ctx or m
    return MlaPrefill(heads, rank, rope, ctx, ctx + 3, 0.11).workload(m)


def combine(heads: int = 3, dim: int = 24, splits: int = 7) -> Workload:
    return FlashCombine(heads, dim, splits).workload()


def rope_store(heads: int = 4, kv_heads: int = 2, dim: int = 32, m: int = 1, **more: object) -> Workload:
    fields: dict[str, Any] = {"v_head_dim": dim, "max_ctx": 9, "rope_dim": dim, "mode": "neox", **more}
    return RopeCacheStore(heads, kv_heads, dim, **fields).workload(m)


def mla_store(heads: int = 3, rank: int = 40, nope: int = 24, rope: int = 16, m: int = 1, **more: object) -> Workload:
    rows = {"q_row": heads * (nope + rope), "kv_row": rank + rope}
    fields: dict[str, Any] = {"max_ctx": 9, "eps": 1e-6, **rows, **more}
    return MlaCacheStore(heads, rank, nope, rope, **fields).workload(m)


def host(heads: int = 4, kv_heads: int = 2, dim: int = 32, ctx: int = 31, value_dim: int = 0, **more: Any) -> Workload:
    return HostDecode(**_flash(heads, kv_heads, dim, ctx, value_dim, more)).workload()


def host_many(
    m: int, heads: int = 4, kv_heads: int = 2, dim: int = 32, ctx: int = 0, value_dim: int = 0, **more: object
) -> Workload:
    """`host_prefill` of m tokens, by default from the first position on."""
    return HostPrefill(**_flash(heads, kv_heads, dim, ctx or m, value_dim, more)).workload(m)


def host_store(heads: int = 4, kv_heads: int = 2, dim: int = 32, m: int = 1, **more: object) -> Workload:
    fields: dict[str, Any] = {"v_head_dim": dim, "max_ctx": 19, "rope_dim": dim, "mode": "neox", **more}
    return HostCacheStore(heads, kv_heads, dim, **fields).workload(m)
