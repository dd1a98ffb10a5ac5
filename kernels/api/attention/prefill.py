"""Attention of a prompt's tokens, whose keys and values are already in the cache. Each token attends to the positions
up to its own."""

from __future__ import annotations

from tinygrad import Tensor, UOp

from kernels.api.arguments import FLOATS
from kernels.api.attention.common import Asked, bound, flash, latent
from kernels.api.launch import launch
from kernels.api.scalars import scalars


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
