"""Shared by the attention functions: checks of caches and heads, and the position that a kernel is bound to."""

from __future__ import annotations

from numbers import Integral

from tinygrad import Tensor, UOp

from kernels.api.arguments import HALF, ArgumentError, given, same_device, shown, sizes, tensor
from kernels.ops.attention.spec import FlashPrefill, MlaPrefill
from kernels.ops.op import START

Asked = tuple[FlashPrefill | MlaPrefill, dict[str, Tensor]]
"""The checked spec of attention, in its form for many tokens, and the operands."""


def flash(
    op: str,
    q: Tensor,
    lead: str,
    k_cache: Tensor,
    v_cache: Tensor,
    ctx: int | None,
    scale: float,
    window: int,
    softcap: float,
    sinks: Tensor | None,
) -> Asked:
    """Grouped-query attention. lead: the dimensions of q before its heads, "" or "m, "."""
    *_, heads, dim = sizes(op, "q", q, f"[{lead}heads, head_dim]")
    kv_heads, rows, k_dim = sizes(op, "k_cache", k_cache, "[kv_heads, max_ctx, head_dim]", HALF)
    v_heads, v_rows, value_dim = sizes(op, "v_cache", v_cache, "[kv_heads, max_ctx, v_head_dim]", HALF)
    if k_dim != dim or heads % kv_heads or (v_heads, v_rows) != (kv_heads, rows):
        shapes = f"q {q.shape}, k_cache {k_cache.shape}, v_cache {v_cache.shape}"
        raise ArgumentError(f"{op}: {shapes} do not fit: head_dim and max_ctx are shared, kv_heads divides heads")
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        same_device(op, name, cache, str(q.device))
    spec = FlashPrefill(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        v_head_dim=value_dim,
        ctx=ctx or rows,
        max_ctx=rows,
        window=window,
        sinks=sinks is not None,
        softcap=softcap or None,
        scale=scale,
    )
    return spec, {"q": q, "k": k_cache, "v": v_cache, **given(sinks=sinks)}


def latent(op: str, q_latent: Tensor, q_rope: Tensor, lead: str, cache: Tensor, ctx: int | None, scale: float) -> Asked:
    """Multi-head latent attention in absorbed form."""
    *before, heads, rank = sizes(op, "q_latent", q_latent, f"[{lead}heads, kv_lora]")
    turned = sizes(op, "q_rope", q_rope, f"[{lead}heads, rope_dim]")
    rows, dim = sizes(op, "cache", cache, "[max_ctx, kv_lora + rope_dim]", HALF)
    if turned != (*before, heads, dim - rank):
        shapes = f"q_latent {q_latent.shape}, q_rope {q_rope.shape}, cache {cache.shape}"
        raise ArgumentError(f"{op}: {shapes} do not fit: the cache has kv_lora + rope_dim columns")
    spec = MlaPrefill(heads, rank, dim - rank, ctx=ctx or rows, max_ctx=rows, scale=scale)
    return spec, {"q_latent": q_latent, "q_rope": q_rope, "cache": cache}


def bound(op: str, start_pos: int | UOp, max_ctx: int, tokens: int) -> UOp:
    """The Variable start_pos, bound to its value. Raises ArgumentError for a position outside of the cache and for a
    cache of one position: tinygrad turns a Variable with one value into a constant, which no compiled kernel
    accepts."""
    if max_ctx < 2:
        raise ArgumentError(f"{op}: the cache has {max_ctx} positions, expected at least 2")
    if isinstance(start_pos, UOp):
        position = _value(op, start_pos, max_ctx)
    elif isinstance(start_pos, bool) or not isinstance(start_pos, Integral):
        raise ArgumentError(f"{op}: start_pos is {shown(start_pos)}, expected an int or a bound Variable")
    else:
        position = int(start_pos)
    if not 0 <= position <= max_ctx - tokens:
        raise ArgumentError(
            f"{op}: start_pos {position} with {tokens} tokens is outside of a cache of {max_ctx} positions"
        )
    if isinstance(start_pos, UOp):
        return start_pos
    variable: UOp = UOp.variable(START, 0, max_ctx - 1).bind(position)
    return variable


def _value(op: str, variable: UOp, max_ctx: int) -> int:
    """The value of a Variable. Raises ArgumentError for a Variable that is not bound, that has another name than
    start_pos, or whose range exceeds the positions of the cache."""
    made = f'UOp.variable("{START}", 0, {max_ctx - 1}).bind(position)'
    if not variable.is_bound_var:
        raise ArgumentError(f"{op}: start_pos is an expression or not bound, expected a bound Variable, as in {made}")
    unbound, value = variable.unbind()
    if unbound.expr != START or unbound.vmin < 0 or unbound.vmax >= max_ctx:
        said = f"the Variable {unbound.expr} from {unbound.vmin} to {unbound.vmax}"
        raise ArgumentError(f"{op}: start_pos is {said}, expected one as in {made}")
    return int(value)


def pair(op: str, name: str, value: object) -> tuple[Tensor, Tensor]:
    """`value`, checked to be a pair of Tensors. Raises ArgumentError."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ArgumentError(f"{op}: {name} is {shown(value)}, expected a pair of Tensors")
    first, second = (tensor(op, f"{name}[{i}]", item) for i, item in enumerate(value))
    return first, second
