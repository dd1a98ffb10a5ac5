"""Workloads of the ops around attention, small, each with one thing changed by keyword."""

from __future__ import annotations

from dataclasses import replace

from db.records import Workload


def _workload(op: str, format: str, n: int, k: int, m: int = 1, dtype: str = "float32", **extra: int | str) -> Workload:
    return Workload(op, format, n, k, m, dtype, dtype, extra=tuple(sorted(extra.items())))


def flash(
    heads: int = 4, kv_heads: int = 2, dim: int = 32, ctx: int = 31, value_dim: int = 0, **more: int | str
) -> Workload:
    """`flash_decode` over a cache with a few rows more than are used."""
    value_dim = value_dim or dim
    extra: dict[str, int | str] = {"max_ctx": ctx + 5, "splits": 1, "scale": f"{dim**-0.5:.7g}", **more}
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": dim, "v_head_dim": value_dim, "ctx": ctx}
    return _workload("flash_decode", "F16", heads * value_dim, dim, **sizes, **extra)


def flash_many(m: int, heads: int = 4, kv_heads: int = 2, dim: int = 32, ctx: int = 0, **more: int | str) -> Workload:
    """`flash_prefill` of m tokens, by default from the first position on."""
    w = flash(heads, kv_heads, dim, ctx or m, **more)
    return replace(w, op="flash_prefill", m=m, extra=tuple(pair for pair in w.extra if pair[0] != "splits"))


def mla_many(m: int, heads: int = 4, rank: int = 32, rope: int = 16, ctx: int = 0) -> Workload:
    w = mla(heads, rank, rope, ctx or m)
    return replace(w, op="mla_prefill", m=m, extra=tuple(pair for pair in w.extra if pair[0] != "splits"))


def mla(heads: int = 4, rank: int = 32, rope: int = 16, ctx: int = 31, splits: int = 1) -> Workload:
    sizes = {"heads": heads, "kv_lora": rank, "rope_dim": rope, "ctx": ctx, "max_ctx": ctx + 3, "splits": splits}
    return _workload("mla_decode", "F16", heads * rank, rank + rope, **sizes, scale="0.11")


def combine(heads: int = 3, dim: int = 24, splits: int = 7) -> Workload:
    sizes = {"heads": heads, "v_head_dim": dim, "splits": splits}
    return _workload("flash_combine", "F32", heads * dim, splits, **sizes)


def rope_store(heads: int = 4, kv_heads: int = 2, dim: int = 32, m: int = 1, **more: int | str) -> Workload:
    extra: dict[str, int | str] = {"max_ctx": 9, "rope_dim": dim, **more}
    n = heads * dim + kv_heads * (dim + int(extra.get("v_head_dim", dim)))
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": dim}
    return _workload("rope_cache_store", "F16", n, n, m, **sizes, **extra)


def mla_store(
    heads: int = 3, rank: int = 40, nope: int = 24, rope: int = 16, m: int = 1, **more: int | str
) -> Workload:
    n = (heads + 1) * rope + rank
    sizes = {"heads": heads, "kv_lora": rank, "qk_nope": nope, "rope_dim": rope, "max_ctx": 9}
    return _workload("mla_cache_store", "F16", n, n, m, **sizes, **more)
