"""A block's attention as launches: grouped queries over a KV cache, or multi-head latent attention (MLA). No FFN here.

Facts of llama.cpp's model definitions (src/models); MLA in its absorbed form, as src/models/deepseek2.cpp has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from db.records import decimal
from kernels.models.decode_model import Model
from kernels.models.header import TensorInfo
from kernels.models.launch import RESIDUAL, Columns, Extra, Launch, Read, Takes, neighbours, parts, rows, stacked, whole
from kernels.models.rope import RopeScaling
from kernels.splits import splits

CACHE = "F16"
CACHE_ITEM_NBYTES = 2


@dataclass(frozen=True)
class Heads:
    """A layer's attention: how many heads, how wide, how far they see (window 0: everything), q.k's scale."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    rope_dim: int
    window: int
    scale: float


def attention(model: Model, layer: int) -> Iterator[Launch]:
    """From the residual to the residual."""
    block = f"blk.{layer}."
    yield from (_latent if model.arch.mla else _grouped)(model, block, layer)
    yield from model.post_norm(block, 0)


def heads_of(model: Model, layer: int) -> Heads:
    hp, arch = model.hp, model.arch
    heads = hp.integer("attention.head_count", layer=layer)
    kv_heads = hp.integer("attention.head_count_kv", heads, layer=layer)
    if heads % kv_heads:
        raise hp.error(f"{heads} heads cannot share {kv_heads} kv heads evenly (layer {layer})")
    width = model.dim // heads
    head_dim = hp.integer("attention.key_length", width or None, layer=layer)
    value_dim = hp.integer("attention.value_length", width or None, layer=layer)
    rope_dim = hp.integer("rope.dimension_count", head_dim, layer=layer)
    if rope_dim > head_dim or rope_dim % 2:
        raise hp.error(f"{hp.name('rope.dimension_count')} is {rope_dim}, expected an even number up to {head_dim}")
    wide = arch.wide_scale_layers == hp.integer("block_count")
    scale = hp.number("attention.scale", 0.0) or (width if wide else head_dim) ** -0.5
    return Heads(heads, kv_heads, head_dim, value_dim, rope_dim, _window(model, layer), scale)


def _window(model: Model, layer: int) -> int:
    """The positions that a layer sees, 0 for all. attention.sliding_window_pattern is a period, or a flag a layer."""
    hp, period = model.hp, model.arch.window_period
    if not period:
        return 0
    window = hp.integer("attention.sliding_window", model.arch.window, low=0)
    key = "attention.sliding_window_pattern"
    if hp.items(key) is not None:
        return window if hp.flag(key, True, layer=layer) else 0
    period = hp.integer(key, period, low=0)
    return window if period == 0 or layer % period < period - 1 else 0


def _grouped(model: Model, block: str, layer: int) -> Iterator[Launch]:
    a, hp = heads_of(model, layer), model.hp
    yield from _qkv(model, block, a)
    qkv: Takes = {"qkv": "qkv"}
    norms = {name: hp.tensor(f"{block}attn_{name}_norm.weight") for name in ("q", "k")}
    widths = a.heads * a.head_dim, a.kv_heads * a.head_dim
    fused: tuple[Read, ...] = ()
    if all(
        n is not None and n.shape == (width,) != (a.head_dim,) for n, width in zip(norms.values(), widths, strict=True)
    ):
        # norms over all heads at once (olmoe) are launches of their own
        start = 0
        for (name, norm), width in zip(norms.items(), widths, strict=True):
            assert norm is not None
            yield model.norm(norm.name, width, Columns("qkv", start, start + width), name)
            start += width
        qkv = {"qkv": ("q", "k", Columns("qkv", start, start + a.kv_heads * a.value_dim))}
    else:  # those of a head are part of the next launch
        fused = whole(**{f"{name}_norm": norm and hp.vector(norm.name, a.head_dim) for name, norm in norms.items()})
    extra: dict[str, int | str] = {
        "heads": a.heads,
        "kv_heads": a.kv_heads,
        "head_dim": a.head_dim,
        "max_ctx": model.context,
        "rope_dim": a.rope_dim,
        "mode": model.arch.rope,
        "qk_norm": int(bool(fused)),
    }
    if a.value_dim != a.head_dim:
        extra["v_head_dim"] = a.value_dim
    if fused:
        extra["eps"] = decimal(model.eps)
    row = a.kv_heads * (a.head_dim + a.value_dim)
    n = a.heads * a.head_dim + row
    stored = CACHE_ITEM_NBYTES * row
    caches = {"k_cache": f"{block}k", "v_cache": f"{block}v"}
    takes = {**qkv, **caches, **angles(model, a.window)}
    leaves = "q", *caches.values()
    yield Launch("rope_cache_store", CACHE, n, n, fused, 2 * n, takes, leaves, "none", extra, stored, decode_only=True)
    sinks = hp.tensor(f"{block}attn_sinks.weight")
    cap = hp.number("attn_logit_softcapping", model.arch.softcap)
    yield from _decode(
        model,
        "flash",
        a,
        row,
        whole(sinks=sinks),
        {"q": "q", "k": f"{block}k", "v": f"{block}v"},
        {
            "heads": a.heads,
            "kv_heads": a.kv_heads,
            "head_dim": a.head_dim,
            "v_head_dim": a.value_dim,
            "window": a.window,
            "sinks": int(sinks is not None),
            "softcap": decimal(cap) if cap else "none",
        },
    )
    yield model.output_linear(f"{block}attn_output", "attended", k=a.heads * a.value_dim)


def _qkv(model: Model, block: str, a: Heads) -> Iterator[Launch]:
    hp, rows = model.hp, (a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.value_dim)
    if hp.tensor(f"{block}attn_qkv.weight") is not None:
        names = [f"{block}attn_qkv"]
        weights = [hp.matrix(f"{names[0]}.weight", n=sum(rows), k=model.dim)]
    else:
        names = [f"{block}attn_{name}" for name in ("q", "k", "v")]
        weights = [hp.matrix(f"{name}.weight", n=n, k=model.dim) for name, n in zip(names, rows, strict=True)]
    biases = [hp.tensor(f"{name}.bias") for name in names]
    yield from normed_linear(model, f"{block}attn_norm.weight", weights, biases, RESIDUAL, "qkv")


def normed_linear(
    model: Model,
    norm: str,
    weights: list[TensorInfo],
    biases: list[TensorInfo | None],
    takes: str,
    leaves: str,
    x_row: int = 0,
) -> Iterator[Launch]:
    """RMSNorm and every weight that takes what it makes. x_row: of a value of so many columns only the first are meant.
    Raises HeaderError where only some have a bias."""
    k, n = weights[0].shape[1], sum(w.shape[0] for w in weights)
    found = [bias for bias in biases if bias is not None]
    if found and sum(bias.shape[0] for bias in found) != n:
        raise model.hp.error(f"{found[0].name} is a bias, but not all of {weights[0].name} and its fellows have one")
    epilogue = "bias" if found else "none"
    if model.many:
        yield model.norm(norm, k, Columns(takes, 0, k) if x_row else takes, "normed")
        groups = neighbours(weights)
        for i, group in enumerate(groups):
            own = [bias for weight, bias in zip(weights, biases, strict=False) if weight in group and bias is not None]
            reads = *(Read("w", weight) for weight in group), *(Read("bias", bias) for bias in own)
            leaf, sizes = f"{leaves}.{i}" if len(groups) > 1 else leaves, (group[0].format, rows(group), k)
            yield Launch("linear", *sizes, reads, rows(group) * k, {"x": "normed"}, (leaf,), epilogue)
        return
    vectors = whole(norm=model.hp.vector(norm, k))
    reads = (*vectors, *stacked(weights), *(Read("bias", bias) for bias in found))
    extra: Extra = {"parts": parts(weights), "eps": decimal(model.eps)} | ({"x_row": x_row} if x_row else {})
    yield Launch("rmsnorm_linear", weights[0].format, n, k, reads, n * k, {"x": takes}, (leaves,), epilogue, extra)


def angles(model: Model, window: int) -> Takes:
    """The tables of rope angles of a layer: those that see a window only may turn by others."""
    local = ".local" if window and model.arch.local_rope_base else ""
    return {"cos": f"cos{local}", "sin": f"sin{local}"}


def _decode(
    model: Model, kind: str, a: Heads, row: int, reads: tuple[Read, ...], takes: Takes, extra: dict[str, int | str]
) -> Iterator[Launch]:
    """Attention over a cache with `row` items a position, and what puts its runs together."""
    seen = min(model.context, a.window or model.context)
    n, products = a.heads * a.value_dim, a.heads * seen * (a.head_dim + a.value_dim)
    cache = CACHE_ITEM_NBYTES * seen * row
    extra = {**extra, "ctx": model.context, "max_ctx": model.context, "scale": decimal(a.scale)}
    if model.many:
        op = f"{kind}_prefill"
        yield Launch(op, CACHE, n, a.head_dim, reads, products, takes, ("attended",), "none", extra, cache)
        return
    op, count = f"{kind}_decode", splits(seen, a.heads, a.kv_heads, model.device)
    leaves, extra = ("attended" if count == 1 else "parts", "lse"), extra | {"splits": count}
    found = Launch(op, CACHE, n, a.head_dim, reads, products, takes, leaves, "none", extra, cache, decode_only=True)
    if count == 1:
        yield found
        return
    yield replace(found, out_dtype="float32")
    sizes: Extra = {"heads": a.heads, "v_head_dim": a.value_dim, "splits": count}
    yield Launch(
        "flash_combine", "F32", n, count, (), 2 * n * count, {"parts": "parts", "lse": "lse"}, ("attended",), "none",
        sizes, decode_only=True, x_dtype="float32",
    )  # fmt: skip


def _latent(model: Model, block: str, layer: int) -> Iterator[Launch]:
    """q and the compressed kv from one x; q's plain half is taken into the cache's space by attn_k_b, attention runs
    over the compressed rows themselves, and attn_v_b takes each head's result out of it."""
    hp = model.hp
    heads = hp.integer("attention.head_count", layer=layer)
    rank, rope = hp.integer("attention.kv_lora_rank"), hp.integer("rope.dimension_count")
    key = hp.integer("attention.key_length_mla", hp.integer("attention.key_length"))
    value = hp.integer("attention.value_length_mla", hp.integer("attention.value_length"))
    nope = key - rope
    if nope < 1 or rope % 2:
        raise hp.error(f"{hp.name('rope.dimension_count')} is {rope}, expected an even number below {key}")
    compress = hp.matrix(f"{block}attn_kv_a_mqa.weight", n=rank + rope, k=model.dim)
    q_a = hp.tensor(f"{block}attn_q_a.weight")
    if q_a is not None:
        width = hp.integer("attention.q_lora_rank")
        first = hp.matrix(q_a.name, n=width, k=model.dim)
    else:
        first = hp.matrix(f"{block}attn_q.weight", n=heads * key, k=model.dim)
    # the launches that follow read their columns in place: none is copied out of a row that holds several's
    split, joint = first.shape[0], first.shape[0] + rank + rope
    yield from normed_linear(model, f"{block}attn_norm.weight", [first, compress], [], RESIDUAL, "qkv")
    q = "qkv"
    if q_a is not None:
        q_b = hp.matrix(f"{block}attn_q_b.weight", n=heads * key, k=width)
        yield from normed_linear(model, f"{block}attn_q_a_norm.weight", [q_b], [], "qkv", "queries", x_row=joint)
        q = "queries"
    q_row = joint if q_a is None else heads * key
    extra: dict[str, int | str] = {
        "heads": heads,
        "kv_lora": rank,
        "qk_nope": nope,
        "rope_dim": rope,
        "max_ctx": model.context,
        "eps": decimal(model.eps),
        "q_row": q_row,
        "kv_row": joint,
        "kv_start": split,
    }
    row = rank + rope
    kv_norm = whole(kv_norm=hp.vector(f"{block}attn_kv_a_norm.weight", rank))
    n, stored, cache = heads * rope + row, CACHE_ITEM_NBYTES * row, f"{block}kv"
    takes: Takes = {"q": q, "kv": "qkv", "cache": cache, **angles(model, 0)}
    yield Launch(
        "mla_cache_store", CACHE, n, n, kv_norm, 2 * n, takes, ("q_rope", cache), "none", extra, stored,
        decode_only=True,
    )  # fmt: skip
    k_b, v_b = absorbed(model, block, heads, rank, nope, value)
    # each head's columns that are not rotated
    absorb = _head_linear(k_b, heads, q, "q_latent")
    yield replace(absorb, extra={**absorb.extra, "step": key, "row": q_row})
    a = Heads(heads, 1, row, rank, rope, 0, RopeScaling.of(hp, mla=True).scores * key**-0.5)
    sizes: dict[str, int | str] = {"heads": heads, "kv_lora": rank, "rope_dim": rope}
    takes = {"q_latent": "q_latent", "q_rope": "q_rope", "cache": cache}
    yield from _decode(model, "mla", a, row, (), takes, sizes)
    yield _head_linear(v_b, heads, "attended", "values")
    yield model.output_linear(f"{block}attn_output", "values", k=heads * value)


def absorbed(model: Model, block: str, heads: int, rank: int, nope: int, value: int) -> tuple[Read, Read]:
    """attn_k_b [heads, rank, nope] and attn_v_b [heads, value, rank].

    Of an older file's attn_kv_b, rows of which are those of each head's key and then of its value, the value half is
    picked by rows and stays as it is; the key half must be transposed, which blocks cannot be, so it becomes F16.
    """
    hp, both = model.hp, model.hp.tensor(f"{block}attn_kv_b.weight")
    if both is None:
        k_b = hp.stack(f"{block}attn_k_b.weight", (heads, rank, nope))
        return Read("w", k_b), Read("w", hp.stack(f"{block}attn_v_b.weight", (heads, value, rank)))
    both = hp.matrix(both.name, n=heads * (nope + value), k=rank)
    values = both.nbytes // (nope + value) * value
    return (
        Read("w", replace(both, format="F16", shape=(heads, rank, nope), nbytes=2 * heads * rank * nope), half="keys"),
        Read("w", replace(both, shape=(heads, value, rank), nbytes=values), half="values"),
    )


def _head_linear(weight: Read, heads: int, takes: str | Columns, leaves: str) -> Launch:
    _, n, k = weight.tensor.shape
    products, extra = heads * n * k, {"heads": heads}
    return Launch(
        "head_linear", weight.tensor.format, n, k, (weight,), products, {"x": takes}, (leaves,), "none", extra
    )
