"""Attention of one decoded token over Tensors: rotation and store, then attention parallel over the context.

The caches are float16 and hold `max_ctx` positions; a token is at `start_pos`, an int or tinygrad's bound Variable of
that name, so that one compiled kernel serves every position and TinyJit replays it. Schedules are looked up (nothing is
ever searched here) for the context length `ctx`, by default max_ctx; outputs of a store must be what is read after it.
tinygrad forbids opening a device inside a captured function: call once outside of it, as TinyJit itself does.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from tinygrad import Tensor, UOp, dtypes

from db.records import Target, Workload, decimal
from kernels import devices, sink
from kernels.launch import launch
from kernels.ops import attend
from kernels.splits import splits as default_splits

_NAMES = {dtypes.float32: "float32", dtypes.float16: "float16"}
Extra = dict[str, int | str]


def flash_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    start_pos: int | UOp,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    ctx: int | None = None,
    splits: int | None = None,
) -> Tensor:
    """Attention of one token: q [heads, head_dim] over k_cache [kv_heads, max_ctx, head_dim] and v_cache [kv_heads,
    max_ctx, v_head_dim], rows up to start_pos: [heads, v_head_dim] in q's dtype.

    window: only the last so many positions, 0 for all. softcap: scores are cap * tanh(q.k * scale / cap), 0 for not.
    sinks [heads] float32: logits that join the softmax. splits: runs that the context is divided into, each with
    workgroups of its own; by default as many as give a large GPU work, and one on a CPU. Raises ValueError for shapes
    or dtypes that do not fit.
    """
    _check("q [heads, head_dim]", q, 2)
    _check_cache("k_cache [kv_heads, max_ctx, head_dim]", k_cache, 3)
    _check_cache("v_cache [kv_heads, max_ctx, v_head_dim]", v_cache, 3)
    (heads, dim), (kv_heads, max_ctx, k_dim), value_dim = _ints(q), _ints(k_cache), _ints(v_cache)[2]
    if k_dim != dim or heads % kv_heads or _ints(v_cache)[:2] != (kv_heads, max_ctx):
        raise ValueError(f"flash_decode: q {q.shape}, k_cache {k_cache.shape}, v_cache {v_cache.shape} do not fit")
    extra: Extra = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": dim,
        "v_head_dim": value_dim,
        "window": window,
        "sinks": int(sinks is not None),
        "softcap": decimal(softcap) if softcap else "none",
    }
    given = {"q": q, "k": k_cache, "v": v_cache} | ({} if sinks is None else {"sinks": sinks})
    lengths = ctx or max_ctx, max_ctx, window
    return _decode(
        "flash_decode", q, given, extra, (heads, kv_heads, dim, value_dim), lengths, scale, splits, start_pos
    )


def mla_decode(
    q_latent: Tensor,
    q_rope: Tensor,
    cache: Tensor,
    start_pos: int | UOp,
    *,
    scale: float,
    ctx: int | None = None,
    splits: int | None = None,
) -> Tensor:
    """Latent attention of one token in absorbed form: q_latent [heads, kv_lora] and q_rope [heads, rope_dim] over cache
    [max_ctx, kv_lora + rope_dim], rows up to start_pos: [heads, kv_lora] in q_latent's dtype. Otherwise as
    `flash_decode`."""
    _check("q_latent [heads, kv_lora]", q_latent, 2)
    _check("q_rope [heads, rope_dim]", q_rope, 2)
    _check_cache("cache [max_ctx, kv_lora + rope_dim]", cache, 2)
    (heads, rank), (max_ctx, dim) = _ints(q_latent), _ints(cache)
    if _ints(q_rope) != (heads, dim - rank) or q_rope.dtype != q_latent.dtype:
        raise ValueError(
            f"mla_decode: q_latent {q_latent.shape}, q_rope {q_rope.shape}, cache {cache.shape} do not fit"
        )
    extra: Extra = {"heads": heads, "kv_lora": rank, "rope_dim": dim - rank}
    given = {"q_latent": q_latent, "q_rope": q_rope, "cache": cache}
    lengths = ctx or max_ctx, max_ctx, 0
    return _decode("mla_decode", q_latent, given, extra, (heads, 1, dim, rank), lengths, scale, splits, start_pos)


def rope_cache_store(
    qkv: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    angles: tuple[Tensor, Tensor] | None,
    start_pos: int | UOp,
    *,
    mode: str = "neox",
    norms: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor, Tensor]:
    """From qkv [m, heads * head_dim + kv_heads * (head_dim + v_head_dim)]: q rotated [m, heads, head_dim], and the
    caches (see `flash_decode`; realized) with k rotated and v at start_pos and the m - 1 positions after it, which must
    exist.

    angles: cos and sin [max_ctx, rope_dim / 2] (`angles`), None for no rotation; mode: "neox" turns columns i and i +
    rope_dim / 2 together, "interleaved" 2i and 2i + 1. norms: weights [head_dim] of an RMSNorm of each head of q and of
    k, which comes first. Raises ValueError for shapes or dtypes that do not fit.
    """
    _check("qkv [m, columns]", qkv, 2)
    _check_cache("k_cache [kv_heads, max_ctx, head_dim]", k_cache, 3)
    _check_cache("v_cache [kv_heads, max_ctx, v_head_dim]", v_cache, 3)
    (m, n), (kv_heads, max_ctx, dim), value_dim = _ints(qkv), _ints(k_cache), _ints(v_cache)[2]
    heads, rest = divmod(n - kv_heads * (dim + value_dim), dim)
    if heads < 1 or rest:
        raise ValueError(f"rope_cache_store: qkv {qkv.shape} is not heads of k_cache {k_cache.shape} and v_cache's")
    extra: Extra = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": dim,
        "max_ctx": max_ctx,
        "qk_norm": int(bool(norms)),
    }
    extra |= {"mode": mode, "rope_dim": 2 * _ints(angles[0])[1]} if angles else {"mode": "none", "rope_dim": 0}
    extra |= ({"v_head_dim": value_dim} if value_dim != dim else {}) | ({"eps": decimal(eps)} if norms else {})
    given = {"qkv": qkv, "k_cache": k_cache, "v_cache": v_cache}
    given |= dict(zip(("cos", "sin"), angles or (), strict=False)) | dict(
        zip(("q_norm", "k_norm"), norms or (), strict=False)
    )
    w = Workload("rope_cache_store", "F16", n, n, m, _NAMES[qkv.dtype], _NAMES[qkv.dtype], extra=_sorted(extra))
    q, k, v = launch(w, _target(qkv.device), qkv.device, given, _bound(start_pos, max_ctx, m))
    return q, k, v


def mla_cache_store(
    q: Tensor,
    kv: Tensor,
    cache: Tensor,
    kv_norm: Tensor,
    angles: tuple[Tensor, Tensor],
    start_pos: int | UOp,
    *,
    mode: str = "interleaved",
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """From q [m, heads, qk_nope + rope_dim] and the compressed kv [m, kv_lora + rope_dim]: q's rotary columns, rotated
    [m, heads, rope_dim], and cache [max_ctx, kv_lora + rope_dim] with the normalised latent (kv_norm [kv_lora]) and the
    rotated key at start_pos and the m - 1 positions after it. Otherwise as `rope_cache_store`."""
    _check("q [m, heads, columns]", q, 3)
    _check("kv [m, columns]", kv, 2)
    _check_cache("cache [max_ctx, columns]", cache, 2)
    (m, heads, columns), (max_ctx, width), rope = _ints(q), _ints(cache), 2 * _ints(angles[0])[1]
    if _ints(kv) != (m, width) or kv.dtype != q.dtype or rope > min(columns, width - 1):
        raise ValueError(f"mla_cache_store: q {q.shape}, kv {kv.shape}, cache {cache.shape} and {rope} do not fit")
    extra: Extra = {"heads": heads, "qk_nope": columns - rope, "rope_dim": rope, "kv_lora": width - rope}
    extra |= {"max_ctx": max_ctx, "eps": decimal(eps)}
    if mode != "interleaved":
        extra["mode"] = mode
    n, dtype = heads * rope + width, _NAMES[q.dtype]
    w = Workload("mla_cache_store", "F16", n, n, m, dtype, dtype, extra=_sorted(extra))
    given = {"q": q, "kv": kv, "cache": cache, "kv_norm": kv_norm, "cos": angles[0], "sin": angles[1]}
    q_rope, after = launch(w, _target(q.device), q.device, given, _bound(start_pos, max_ctx, m))
    return q_rope, after


def angles(
    max_ctx: int, rope_dim: int, base: float = 10000.0, factors: npt.NDArray[np.float32] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """cos and sin [max_ctx, rope_dim / 2] of position * base^(-2i / rope_dim) / factors[i]; the factors are a model's
    rope_freqs (llama3)."""
    frequencies = base ** (-np.arange(0, rope_dim, 2) / rope_dim) / (1.0 if factors is None else factors)
    turns = np.arange(max_ctx)[:, None] * frequencies
    return np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)


def _decode(
    op: str,
    q: Tensor,
    given: dict[str, Tensor],
    extra: Extra,
    sizes: tuple[int, int, int, int],
    lengths: tuple[int, int, int],
    scale: float,
    splits: int | None,
    start_pos: int | UOp,
) -> Tensor:
    """The launch of each split, and that which puts them together where there are several."""
    (heads, kv_heads, dim, value_dim), (ctx, max_ctx, window) = sizes, lengths
    target = _target(q.device)
    splits = splits or default_splits(min(ctx, window or ctx), heads, kv_heads, q.device)
    extra |= {"ctx": ctx, "max_ctx": max_ctx, "splits": splits, "scale": decimal(scale)}
    n, dtype = heads * value_dim, _NAMES[q.dtype]
    out_dtype = dtype if splits == 1 else "float32"
    w = Workload(op, "F16", n, dim, 1, dtype, out_dtype, extra=_sorted(extra))
    out, lse = launch(w, target, q.device, given, _bound(start_pos, max_ctx, 1))
    if splits == 1:
        return out.reshape(heads, value_dim)
    together = _sorted({"heads": heads, "v_head_dim": value_dim, "splits": splits})
    w = Workload("flash_combine", "F32", n, splits, 1, "float32", dtype, extra=together)
    return launch(w, target, q.device, {"parts": out, "lse": lse})[0]


def _bound(start_pos: int | UOp, max_ctx: int, tokens: int) -> UOp:
    if isinstance(start_pos, UOp):
        return start_pos
    if not 0 <= start_pos <= max_ctx - tokens:
        raise ValueError(f"start_pos {start_pos} with {tokens} tokens is outside of a cache of {max_ctx} positions")
    bound: UOp = UOp.variable(attend.START, 0, max_ctx - 1).bind(start_pos)
    return bound


def _sorted(extra: Extra) -> tuple[tuple[str, int | str], ...]:
    return tuple(sorted(extra.items()))


@functools.cache
def _target(device: str) -> Target:
    """Remembered, and so is the renderer: a captured function may not open the device."""
    sink.renderer(device)
    return devices.describe_target(device)


def _ints(x: Tensor) -> tuple[int, ...]:
    return tuple(int(size) for size in x.shape)


def _check(what: str, x: Tensor, dimensions: int) -> None:
    if x.ndim != dimensions or x.dtype not in _NAMES:
        raise ValueError(f"{what} must be float32 or float16, saw {x.shape} of {x.dtype.name}")


def _check_cache(what: str, x: Tensor, dimensions: int) -> None:
    if x.ndim != dimensions or x.dtype != dtypes.float16:
        raise ValueError(f"{what} must be float16, saw {x.shape} of {x.dtype.name}")
