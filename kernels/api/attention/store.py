"""Normalises and rotates queries and keys, and stores keys and values in the caches, in one launch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tinygrad import Tensor, UOp, dtypes

from kernels.api.arguments import FLOATS, HALF, SINGLE, ArgumentError, fitting, sizes
from kernels.api.attention.common import bound, pair
from kernels.api.launch import launch
from kernels.api.scalars import scalars
from kernels.ops.rope.spec import MlaCacheStore, RopeCacheStore


@scalars
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
    """From qkv [m, heads * head_dim + kv_heads * (head_dim + v_head_dim)]: the rotated q [m, heads, head_dim], and the
    caches with the rotated k and v at positions start_pos .. start_pos + m - 1, which must exist.

    k_cache, v_cache   as in `flash_decode`, realized
    angles             cos and sin [max_ctx, rope_dim / 2] (see `angles`), None for no rotation
    mode               the columns that rotate as a pair: i and i + rope_dim / 2 ("neox"), or 2i and 2i + 1
                       ("interleaved")
    norms              weights [head_dim] of an RMSNorm of each head of q and of k, applied before the rotation

    Raises ArgumentError for shapes or dtypes that do not fit.
    """
    op = "rope_cache_store"
    m, n = sizes(op, "qkv", qkv, "[m, columns]")
    kv_heads, rows, dim = sizes(op, "k_cache", k_cache, "[kv_heads, max_ctx, head_dim]", HALF)
    *_, value_dim = sizes(op, "v_cache", v_cache, "[kv_heads, max_ctx, v_head_dim]", HALF)
    heads, rest = divmod(n - kv_heads * (dim + value_dim), dim)
    if heads < 1 or rest:
        raise ArgumentError(f"{op}: qkv {qkv.shape} does not fit the heads of k_cache {k_cache.shape} and v_cache")
    spec = RopeCacheStore(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        v_head_dim=value_dim,
        max_ctx=rows,
        rope_dim=0 if angles is None else _turned(op, angles),
        mode="none" if angles is None else mode,
        eps=None if norms is None else eps,
    )
    read = {"qkv": qkv, "k_cache": k_cache, "v_cache": v_cache}
    read |= {} if angles is None else dict(zip(("cos", "sin"), angles, strict=True))
    read |= {} if norms is None else dict(zip(("q_norm", "k_norm"), pair(op, "norms", norms), strict=True))
    device, w = str(qkv.device), spec.workload(m, FLOATS[qkv.dtype])
    q, k, v = launch(w, device, read, bound(op, start_pos, rows, m))
    return q, k, v


@scalars
def mla_cache_store(
    q: Tensor,
    kv: Tensor,
    cache: Tensor,
    kv_norm: Tensor,
    angles: tuple[Tensor, Tensor],
    start_pos: int | UOp,
    *,
    heads: int | None = None,
    head_dim: int | None = None,
    kv_start: int = 0,
    mode: str = "interleaved",
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """From q [m, heads, qk_nope + rope_dim] and the compressed kv [m, kv_lora + rope_dim]: q's rotated columns [m,
    heads, rope_dim], and the cache [max_ctx, kv_lora + rope_dim] with the normalised latent (kv_norm [kv_lora]) and the
    rotated key at positions start_pos .. start_pos + m - 1. Otherwise as `rope_cache_store`.

    q and kv may be parts of wider rows that one linear produced: q [m, row] begins with `heads` heads of `head_dim` =
    qk_nope + rope_dim columns, and kv [m, row] begins at column kv_start.
    """
    op = "mla_cache_store"
    if heads is None or head_dim is None:
        m, heads, head_dim = sizes(op, "q", q, "[m, heads, qk_nope + rope_dim]")
        q_row = heads * head_dim
    else:
        m, q_row = sizes(op, "q", q, "[m, row]")
    kv_m, kv_row = sizes(op, "kv", kv, "[m, columns]")
    (rows, width), rope = sizes(op, "cache", cache, "[max_ctx, kv_lora + rope_dim]", HALF), _turned(op, angles)
    room = q_row >= heads * head_dim and 0 <= kv_start <= kv_row - width
    if kv_m != m or kv.dtype != q.dtype or not room or rope > min(head_dim, width - 1):
        given = f"q {q.shape}, kv {kv.shape}, cache {cache.shape}, kv_start {kv_start} and {rope} rotated columns"
        raise ArgumentError(f"{op}: {given} do not fit")
    spec = MlaCacheStore(
        heads=heads,
        kv_lora=width - rope,
        qk_nope=head_dim - rope,
        rope_dim=rope,
        max_ctx=rows,
        eps=eps,
        q_row=q_row,
        kv_row=kv_row,
        kv_start=kv_start,
        mode=mode,
    )
    device = str(q.device)
    w = spec.workload(m, FLOATS[q.dtype])
    read = {"q": q, "kv": kv, "cache": cache, "kv_norm": kv_norm, "cos": angles[0], "sin": angles[1]}
    q_rope, after = launch(w, device, read, bound(op, start_pos, rows, m))
    return q_rope, after


@scalars
def angles(
    max_ctx: int, rope_dim: int, base: float = 10000.0, factors: npt.NDArray[np.float32] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """cos and sin [max_ctx, rope_dim / 2] of position * base^(-2i / rope_dim) / factors[i]. factors: a model's
    rope_freqs (llama 3)."""
    frequencies = base ** (-np.arange(0, rope_dim, 2) / rope_dim) / (1.0 if factors is None else factors)
    turns = np.arange(max_ctx)[:, None] * frequencies
    return np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)


def _turned(op: str, angles: tuple[Tensor, Tensor]) -> int:
    """The number of rotated columns."""
    cos, sin = pair(op, "angles", angles)
    shape = sizes(op, "angles[0]", cos, "[max_ctx, rope_dim / 2]", SINGLE)
    fitting(op, "angles[1]", sin, shape, dtypes.float32, str(cos.device))
    return 2 * shape[1]
