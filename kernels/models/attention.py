"""A block's attention: grouped queries over a KV cache, or multi-head latent attention (MLA).

Facts of llama.cpp's model definitions (src/models). MLA is written in its absorbed form, as in
src/models/deepseek2.cpp.
"""

from __future__ import annotations

from dataclasses import replace

from kernels.models.builder import Builder
from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Latent, Projection, Rotation
from kernels.models.model import Model
from kernels.models.plan import Columns, Read, Value
from kernels.models.rope import RopeScaling
from kernels.ops.attention.spec import FlashPrefill


def attention(model: Model, builder: Builder, layer: int, x: Value) -> Value:
    """x: the residual [m, dim] -> the residual [m, dim]"""
    return (_latent if model.arch.mla else _grouped)(model, builder, layer, x)


def _grouped(model: Model, builder: Builder, layer: int, x: Value) -> Value:
    hp, block, (a, sinks) = model.hp, f"blk.{layer}.", heads_of(model, layer)
    widths = a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.v_head_dim
    projections = _qkv(model, block, widths)
    if model.arch.attn_norm:
        norm = hp.vector(f"{block}{model.arch.attn_norm}.weight", model.dim)
        found = builder.rmsnorm_linear(x, norm, projections, "qkv")
    else:
        found = builder.linears(x, projections, "qkv")
    if len(found) == 1:  # one weight produced all three
        found = found[0].value.split(widths)
    qkv: list[Columns | Value] = [*found]  # [m, heads * head_dim], [m, kv_heads * head_dim], [m, kv_heads * v_head_dim]
    norms = _head_norms(model, block, a)
    if isinstance(norms, dict):  # a norm over all heads at once (olmoe) is a separate launch
        qkv[:2] = [builder.rmsnorm(s, norms[n], f"{n}_normed") for n, s in zip(("q", "k"), qkv, strict=False)]
        norms = None
    q_turned, k_cache, v_cache = builder.rope_cache_store(qkv, a, rotation(model, builder, a, layer), norms, layer)
    attended = builder.flash(q_turned, k_cache, v_cache, a, sinks)  # [m, heads * v_head_dim]
    return model.add_output(builder, block, x, attended, "attn_output", "attn")


def heads_of(model: Model, layer: int) -> tuple[FlashPrefill, TensorInfo | None]:
    """A layer's attention, in its form for many tokens, and its sinks. Raises HeaderError if sizes contradict each
    other."""
    hp, arch = model.hp, model.arch
    heads = hp.integer("attention.head_count", layer=layer)
    kv_heads = hp.integer("attention.head_count_kv", heads, layer=layer)
    if heads % kv_heads:
        raise hp.error(f"{heads} heads cannot share {kv_heads} kv heads evenly (layer {layer})")
    width = model.dim // hp.integer("attention.head_count", layer=0)  # llama.cpp uses layer 0's count for every layer
    head_dim = hp.integer("attention.key_length", width or None)
    value_dim = hp.integer("attention.value_length", width or None)
    wide = arch.wide_scale_layers == hp.integer("block_count")
    scale = hp.number("attention.scale", 0.0) or (width if wide else head_dim) ** -0.5
    cap = hp.number("attn_logit_softcapping", arch.softcap)
    sinks = hp.optional_vector(f"blk.{layer}.attn_sinks.weight", heads)
    return FlashPrefill(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        v_head_dim=value_dim,
        ctx=model.context,
        max_ctx=model.context,
        window=window_of(model, layer),
        sinks=sinks is not None,
        softcap=cap or None,
        scale=scale,
    ), sinks


def window_of(model: Model, layer: int) -> int:
    """The number of positions that a layer attends to, 0 for all of them.

    attention.sliding_window_pattern is either a period or an array with one flag for each layer.
    """
    hp, period = model.hp, model.arch.window_period
    if not period:
        return 0
    window = hp.integer("attention.sliding_window", model.arch.window, low=0)
    key = "attention.sliding_window_pattern"
    if hp.items(key) is not None:
        return window if hp.flag(key, True, layer=layer) else 0
    period = hp.integer(key, period, low=0)
    return window if period == 0 or layer % period < period - 1 else 0


def rotation(model: Model, builder: Builder, a: FlashPrefill, layer: int) -> Rotation | None:
    """The rotation of a layer's heads, or None for no rotation. Window layers may use other tables of angles."""
    hp, arch = model.hp, model.arch
    dim = hp.integer("rope.dimension_count", a.head_dim)
    if dim > a.head_dim or dim % 2:
        raise hp.error(f"{hp.name('rope.dimension_count')} is {dim}, expected an even number up to {a.head_dim}")
    if arch.still_period and (layer + 1) % arch.still_period == 0:
        return None
    if arch.still_global and arch.window_period and not a.window:
        return None
    return _tables(builder, dim, arch.rope, local=bool(a.window and arch.local_rope_base))


def _tables(builder: Builder, dim: int, mode: str, *, local: bool) -> Rotation:
    suffix = ".local" if local else ""
    return Rotation(dim, mode, builder.input(f"cos{suffix}"), builder.input(f"sin{suffix}"))


def _qkv(model: Model, block: str, widths: tuple[int, int, int]) -> list[Projection]:
    """The weights of q, k and v: three tensors, or one tensor that holds the rows of all three."""
    if model.hp.tensor(f"{block}attn_qkv.weight") is not None:
        return model.projections([(f"{block}attn_qkv", sum(widths))], model.dim)
    names = (f"{block}attn_{name}" for name in ("q", "k", "v"))
    return model.projections(list(zip(names, widths, strict=True)), model.dim)


def _head_norms(
    model: Model, block: str, a: FlashPrefill
) -> tuple[TensorInfo, TensorInfo] | dict[str, TensorInfo] | None:
    """The norms of q and k before rotation: a pair if each head is normalised by itself, a dict by name ("q", "k") if
    one norm covers all heads, None if there are none."""
    hp, names = model.hp, [f"{block}attn_{name}_norm.weight" for name in ("q", "k")]
    q, k = (hp.tensor(name) for name in names)
    if q is None and k is None:
        return None
    widths = a.heads * a.head_dim, a.kv_heads * a.head_dim
    if q is not None and k is not None and (q.shape, k.shape) == ((widths[0],), (widths[1],)) != ((a.head_dim,),) * 2:
        return {"q": q, "k": k}
    return hp.vector(names[0], a.head_dim), hp.vector(names[1], a.head_dim)


def _latent(model: Model, builder: Builder, layer: int, x: Value) -> Value:
    """Latent attention in absorbed form. attn_k_b maps the part of q that is not rotated into the space of the cache,
    attention runs over the compressed rows, and attn_v_b maps each head's result back."""
    hp, block, a = model.hp, f"blk.{layer}.", latent_of(model, layer)
    norm = hp.vector(f"{block}attn_norm.weight", model.dim)
    compressed, queries = hp.tensor(f"{block}attn_q_a.weight") is not None, a.heads * a.key
    width = hp.integer("attention.q_lora_rank") if compressed else queries
    first = [(f"{block}attn_q{'_a' * compressed}", width), (f"{block}attn_kv_a_mqa", a.row)]
    q, kv = builder.rmsnorm_linear(x, norm, model.projections(first, model.dim), "qkv")  # kv: [m, rank + rope]
    if compressed:
        norm = hp.vector(f"{block}attn_q_a_norm.weight", width)
        (q,) = builder.rmsnorm_linear(q, norm, model.projections([(f"{block}attn_q_b", queries)], width), "queries")
    # q: [m, heads * (nope + rope)]; the launches below read its columns in place, without a copy
    kv_norm = hp.vector(f"{block}attn_kv_a_norm.weight", a.rank)
    turn = _tables(builder, a.rope, model.arch.rope, local=False)
    q_rope, cache = builder.mla_cache_store(q, kv, kv_norm, a, turn, layer)  # q_rope: [m, heads * rope]
    k_b, v_b = absorbed(model, block, a)
    q_latent = builder.head_linear(q, k_b, "q_latent", step=a.key)  # [m, heads * rank]
    attended = builder.mla(q_latent, q_rope, cache, a)  # [m, heads * rank]
    values = builder.head_linear(attended, v_b, "values")  # [m, heads * value]
    return model.add_output(builder, block, x, values, "attn_output", "attn")


def latent_of(model: Model, layer: int) -> Latent:
    """The sizes of a layer's latent attention. Raises HeaderError if they contradict each other."""
    hp = model.hp
    heads = hp.integer("attention.head_count", layer=layer)
    rank, rope = hp.integer("attention.kv_lora_rank"), hp.integer("rope.dimension_count")
    key = hp.integer("attention.key_length_mla", hp.integer("attention.key_length"))
    value = hp.integer("attention.value_length_mla", hp.integer("attention.value_length"))
    if key <= rope or rope % 2:
        raise hp.error(f"{hp.name('rope.dimension_count')} is {rope}, expected an even number below {key}")
    return Latent(heads, rank, key - rope, rope, value, RopeScaling.of(hp, mla=True).scores * key**-0.5)


def absorbed(model: Model, block: str, a: Latent) -> tuple[Read, Read]:
    """attn_k_b [heads, rank, nope] and attn_v_b [heads, value, rank].

    An older file has one attn_kv_b instead, with each head's key rows followed by its value rows. The value rows are
    selected and keep their format. The key rows must be transposed, which packed blocks do not allow, so they become
    F16.
    """
    hp, both = model.hp, model.hp.tensor(f"{block}attn_kv_b.weight")
    if both is None:
        k_b = hp.stack(f"{block}attn_k_b.weight", (a.heads, a.rank, a.nope))
        return Read("w", k_b), Read("w", hp.stack(f"{block}attn_v_b.weight", (a.heads, a.value, a.rank)))
    both = hp.matrix(both.name, n=a.heads * (a.nope + a.value), k=a.rank)
    values = both.nbytes // (a.nope + a.value) * a.value
    shapes = (a.heads, a.rank, a.nope), (a.heads, a.value, a.rank)
    return (
        Read("w", replace(both, format="F16", shape=shapes[0], nbytes=2 * a.heads * a.rank * a.nope), half="keys"),
        Read("w", replace(both, shape=shapes[1], nbytes=values), half="values"),
    )
