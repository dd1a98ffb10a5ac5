"""Attention of one decoded token, in parallel over the context, and of a prompt's tokens, whose keys and values are
already in the cache: each token attends to the positions up to its own."""

from __future__ import annotations

from tinygrad import Tensor, UOp

from kernels.api.arguments import FLOATS
from kernels.api.attention.common import Asked, bound, flash, latent
from kernels.api.launch import launch
from kernels.api.scalars import scalars
from kernels.ops.attention.spec import FlashCombine
from kernels.ops.attention.splits import splits as default_splits


@scalars
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

    window    the number of last positions that are attended to, 0 for all
    softcap   scores are softcap * tanh(q.k * scale / softcap), 0 for no bound
    sinks     float32 [heads], an additional logit for each head in the softmax
    splits    the number of parts that the context is divided into, each with workgroups of its own; the default
              occupies a large GPU, and is 1 on a CPU

    Raises ArgumentError for shapes or dtypes that do not fit.
    """
    asked = flash("flash_decode", q, "", k_cache, v_cache, ctx, scale, window, softcap, sinks)
    return _decode("flash_decode", asked, q, splits, start_pos)


@scalars
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
    asked = latent("mla_decode", q_latent, q_rope, "", cache, ctx, scale)
    return _decode("mla_decode", asked, q_latent, splits, start_pos)


def _decode(op: str, asked: Asked, q: Tensor, splits: int | None, start_pos: int | UOp) -> Tensor:
    """Launches attention of all splits, and a second kernel that combines several splits."""
    (spec, read), device, dtype = asked, str(q.device), FLOATS[q.dtype]
    splits = splits or default_splits(spec.seen, spec.heads, spec.kv_heads, device)
    w = spec.one_token(splits).workload(1, dtype, dtype if splits == 1 else "float32")
    out, lse = launch(w, device, read, bound(op, start_pos, spec.max_ctx, 1))
    if splits == 1:
        return out.reshape(spec.heads, spec.v_head_dim)
    w = FlashCombine(spec.heads, spec.v_head_dim, splits).workload(1, "float32", dtype)
    return launch(w, device, {"parts": out, "lse": lse})[0]


@scalars
def flash_prefill(
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
) -> Tensor:
    """Attention of m tokens, the first of which is at start_pos: q [m, heads, head_dim] over the caches of
    `flash_decode`, which already hold rows start_pos .. start_pos + m - 1: [m, heads, v_head_dim] in q's dtype. ctx:
    the context length including the last token, for which a schedule is looked up. Otherwise as `flash_decode`."""
    asked = flash("flash_prefill", q, "m, ", k_cache, v_cache, ctx, scale, window, softcap, sinks)
    return _prefill("flash_prefill", asked, q, start_pos)


@scalars
def mla_prefill(
    q_latent: Tensor, q_rope: Tensor, cache: Tensor, start_pos: int | UOp, *, scale: float, ctx: int | None = None
) -> Tensor:
    """Latent attention of m tokens in absorbed form: q_latent [m, heads, kv_lora] and q_rope [m, heads, rope_dim] over
    cache [max_ctx, kv_lora + rope_dim]: [m, heads, kv_lora] in q_latent's dtype. Otherwise as `flash_prefill`."""
    asked = latent("mla_prefill", q_latent, q_rope, "m, ", cache, ctx, scale)
    return _prefill("mla_prefill", asked, q_latent, start_pos)


def _prefill(op: str, asked: Asked, q: Tensor, start_pos: int | UOp) -> Tensor:
    (spec, read), device, m = asked, str(q.device), int(q.shape[0])
    w = spec.workload(m, FLOATS[q.dtype])
    return launch(w, device, read, bound(op, start_pos, spec.max_ctx, m))[0]
