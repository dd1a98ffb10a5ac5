"""The launches that a model is written with, one method each: what a pass over one token and one over many share.

A method takes values and tensors of the file, adds one launch or a few, and returns the values that they make. Shapes
in comments are [tokens, columns]. `OneToken` and `ManyTokens`, in modules of their own, hold what differs between them.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from db.records import decimal
from kernels.models.header import TensorInfo
from kernels.models.plan import (
    Columns,
    PassBuilder,
    PlanError,
    Read,
    Source,
    Value,
    joined,
    row_count,
    whole,
    width,
)

CACHE_FORMAT = "F16"
CACHE_ITEM_NBYTES = 2


@dataclass(frozen=True)
class Projection:
    """A weight [n, k] of the file, and what is added to its products [n]."""

    weight: TensorInfo
    bias: TensorInfo | None = None

    @property
    def n(self) -> int:
        return row_count([self.weight])

    @property
    def k(self) -> int:
        return self.weight.shape[-1]


@dataclass(frozen=True)
class GateUp:
    """The first half of a gated FFN, act(gate x) * (up x), n columns each. One tensor may hold the rows of both, gate
    first: then `gate` and `up` are that tensor."""

    gate: Projection
    up: Projection
    n: int
    act: str

    @property
    def fused(self) -> bool:
        return self.gate.weight is self.up.weight

    @property
    def biased(self) -> bool:
        return self.gate.bias is not None or self.up.bias is not None


@dataclass(frozen=True)
class Heads:
    """A layer's attention: how many heads, how wide, how far they see (window 0: everything), what q.k is multiplied
    by and, with tanh, bounded by (0: not bounded)."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int
    scale: float
    softcap: float = 0.0
    sinks: TensorInfo | None = None


@dataclass(frozen=True)
class Rotation:
    """The rotation of a layer's heads by position: their first `dim` items, in pairs of a `mode`, by the angles of the
    tables `cos` and `sin` [positions, dim / 2]."""

    dim: int
    mode: str
    cos: Value
    sin: Value


@dataclass(frozen=True)
class Routing:
    """How a token's experts are chosen from the router's logits; extras as `kernels.ops.topk.topk` has them."""

    experts: int
    used: int
    gating: str
    normalised: bool
    scale: float
    bias: TensorInfo | None = None
    groups: int = 1
    used_groups: int = 1


@dataclass(frozen=True)
class Experts:
    """A mixture's weights, of which a token uses `used`: gate and up [experts, n, dim], or one tensor with the rows of
    both, and down [experts, dim, n]; with what is added to their products, [experts, n] or [experts, dim]."""

    used: int
    gate: Projection
    up: Projection
    down: Projection
    act: str

    @property
    def fused(self) -> bool:
        return self.gate.weight is self.up.weight

    @property
    def count(self) -> int:
        return self.down.weight.shape[0]

    @property
    def sizes(self) -> tuple[int, int]:
        """dim, n"""
        return self.down.weight.shape[1], self.down.weight.shape[2]

    @property
    def extra(self) -> dict[str, int | str]:
        return {"experts": self.count, "used": self.used}


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: `heads` with `nope` plain and `rope` rotated columns of q and k, over cache rows of
    `rank` + `rope` columns, out of which each head takes `value` columns."""

    heads: int
    rank: int
    nope: int
    rope: int
    value: int
    scale: float

    @property
    def key(self) -> int:
        return self.nope + self.rope

    @property
    def row(self) -> int:
        return self.rank + self.rope


class Builder(PassBuilder):
    """eps: of every RMSNorm. context: positions that the caches have room for. device: tinygrad's name of what will run
    the pass, as far as that matters for its launches; "" is a GPU."""

    def __init__(self, eps: float, context: int, device: str = "") -> None:
        super().__init__()
        self.eps, self.context, self.device = eps, context, device

    def embed(self, ids: Value, table: TensorInfo, scale: float, name: str) -> Value:
        """ids: [m] -> rows of the table times scale: [m, k]"""
        rows, k = table.shape
        extra = {} if scale == 1.0 else {"scale": decimal(scale)}
        reads = (Read("w", table, 1, rows),)
        (out,) = self.add("embed", table.format, rows, k, {"ids": ids}, {name: k}, reads=reads, extra=extra)
        return out

    def rmsnorm(self, x: Source, weight: TensorInfo, name: str) -> Value:
        """x: [m, n] -> [m, n]"""
        return self._norm("rmsnorm", {"x": x}, weight, name)

    def rmsnorm_add(self, x: Source, weight: TensorInfo, residual: Source, name: str) -> Value:
        """residual + RMSNorm(x): [m, n]"""
        return self._norm("rmsnorm_add", {"x": x, "residual": residual}, weight, name)

    def _norm(self, op: str, inputs: Mapping[str, Source], weight: TensorInfo, name: str) -> Value:
        (n,) = weight.shape
        for operand, source in inputs.items():
            expect(source, n, f"{op}.{operand}")
        reads, extra = whole(weight=weight), {"eps": decimal(self.eps)}
        (out,) = self.add(op, "F32", n, n, inputs, {name: n}, reads=reads, products=2 * n, extra=extra)
        return out

    def linear(self, x: Source, projection: Projection, name: str, add: Source | None = None) -> Value:
        """x: [m, k] -> W x + bias + add: [m, n]"""
        return self._linear(x, [projection.weight], [projection.bias], name, add=add)

    def linears(self, x: Source, projections: Sequence[Projection], name: str) -> tuple[Columns, ...]:
        """x: [m, k] -> each projection of x: [m, n] each. Neighbours of one format are one launch."""
        groups = neighbours(p.weight for p in projections)
        found: list[Columns] = []
        for i, group in enumerate(groups):
            of_group = projections[len(found) : len(found) + len(group)]
            label = f"{name}.{i}" if len(groups) > 1 else name
            out = self._linear(x, group, [p.bias for p in of_group], label)
            first = 0
            for p in of_group:
                found.append(out[first : first + p.n])
                first += p.n
        return tuple(found)

    def _linear(
        self,
        x: Source,
        weights: Sequence[TensorInfo],
        biases: Sequence[TensorInfo | None],
        name: str,
        *,
        operand: str = "w",
        n: int | None = None,
        add: Source | None = None,
        gate: Source | None = None,
        act: str = "",
    ) -> Value:
        """One launch over weights of one format, whose rows follow each other. operand, n: where only some of a
        tensor's rows are meant."""
        n = row_count(weights) if n is None else n
        format, k = weights[0].format, weights[0].shape[-1]
        expect(x, k, "linear.x")
        found = [bias for bias in biases if bias is not None]
        inputs: dict[str, Source] = {"x": x}
        terms = ["bias"] if found else []
        for term, source in (("add", add), ("gate", gate)):
            if source is not None:
                expect(source, n, f"linear.{term}")
                inputs["residual" if term == "add" else term] = source
                terms.append(term)
        reads = *(Read(operand, w) for w in weights), *(Read("bias", bias) for bias in found)
        (out,) = self.add(
            "linear", format, n, k, inputs, {name: n}, reads=reads, products=n * k,
            epilogue="_".join(terms) or "none", extra={"act": act} if act else {},
        )  # fmt: skip
        return out

    def gate_then_up(self, x: Source, weights: GateUp, name: str, norm: TensorInfo | None) -> Value:
        """As `gate_up`, by a launch for the norm and one for each weight, which may have a bias."""
        x = self.rmsnorm(x, norm, f"{name}_normed") if norm else x
        gate, up, n = weights.gate, weights.up, weights.n
        halves = ("w+", "+w") if weights.fused else ("w", "w")
        gated = self._linear(x, [gate.weight], [gate.bias], f"{name}_gate", operand=halves[0], n=n)
        return self._linear(x, [up.weight], [up.bias], name, operand=halves[1], n=n, gate=gated, act=weights.act)

    def rope_cache_store(
        self,
        qkv: Sequence[Columns | Value],
        a: Heads,
        rotation: Rotation | None,
        norms: tuple[TensorInfo, TensorInfo] | None,
        layer: int,
    ) -> tuple[Value, Value, Value]:
        """q, k, v: [m, heads * dim] each -> q rotated, and the caches with k rotated and v in them.

        rotation: None leaves q and k as they are. norms: of each head of q and of k, before they are rotated.
        """
        expect(
            qkv, n := a.heads * a.head_dim + (row := a.kv_heads * (a.head_dim + a.value_dim)), "rope_cache_store.qkv"
        )
        extra: dict[str, int | str] = {
            "heads": a.heads,
            "kv_heads": a.kv_heads,
            "head_dim": a.head_dim,
            "max_ctx": self.context,
            "rope_dim": rotation.dim if rotation else 0,
            "mode": rotation.mode if rotation else "none",
            "qk_norm": int(norms is not None),
        }
        if a.value_dim != a.head_dim:
            extra["v_head_dim"] = a.value_dim
        if norms is not None:
            extra["eps"] = decimal(self.eps)
        caches = {f"{which}_cache": self.input(f"cache.{layer}.{which}", persistent=True) for which in ("k", "v")}
        tables = {"cos": rotation.cos, "sin": rotation.sin} if rotation else {}
        q, k, v = self.add(
            "rope_cache_store", CACHE_FORMAT, n, n, {"qkv": qkv, **caches, **tables},
            {"q": a.heads * a.head_dim, "k_cache": None, "v_cache": None},
            reads=whole(q_norm=norms[0], k_norm=norms[1]) if norms else (), products=2 * n, extra=extra,
            cache_written_nbytes=CACHE_ITEM_NBYTES * row, decode_only=True,
        )  # fmt: skip
        return q, k, v

    def mla_cache_store(
        self, q: Source, kv: Source, kv_norm: TensorInfo, a: Latent, rotation: Rotation, layer: int
    ) -> tuple[Value, Value]:
        """q: [m, heads * key], kv: [m, rank + rope] -> q's rotated columns [m, heads * rope], and the cache with the
        normalised and rotated kv in it. Both are read where they lie in the rows that they are columns of."""
        expect(q, a.heads * a.key, "mla_cache_store.q")
        expect(kv, a.row, "mla_cache_store.kv")
        (q_value, q_start), (kv_value, kv_start) = place(q), place(kv)
        if q_start:
            raise PlanError(f"mla_cache_store reads q from the start of a row, not {q}")
        extra: dict[str, int | str] = {
            "heads": a.heads,
            "kv_lora": a.rank,
            "qk_nope": a.nope,
            "rope_dim": a.rope,
            "max_ctx": self.context,
            "eps": decimal(self.eps),
            "q_row": q_value.columns or 0,
            "kv_row": kv_value.columns or 0,
            "kv_start": kv_start,
        }
        n = a.heads * a.rope + a.row
        cache = self.input(f"cache.{layer}.kv", persistent=True)
        inputs = {"q": q_value, "kv": kv_value, "cache": cache, "cos": rotation.cos, "sin": rotation.sin}
        q_rope, stored = self.add(
            "mla_cache_store", CACHE_FORMAT, n, n, inputs, {"q_rope": a.heads * a.rope, "kv_cache": None},
            reads=whole(kv_norm=kv_norm), products=2 * n, extra=extra,
            cache_written_nbytes=CACHE_ITEM_NBYTES * a.row, decode_only=True,
        )  # fmt: skip
        return q_rope, stored

    def head_linear(self, x: Source, weight: Read, name: str, step: int | None = None) -> Value:
        """Each head's columns of x, `step` apart, times its matrix of weight [heads, n, k]: [m, heads * n].

        step: from a head's columns to the next's, of which the first k are read; None: they follow each other.
        """
        heads, n, k = weight.tensor.shape
        expect(x, heads * (step or k), f"head_linear.x of {weight.tensor.name}")
        value, start = place(x)
        if start:
            raise PlanError(f"head_linear reads x from the start of a row, not {x}")
        extra: dict[str, int | str] = {"heads": heads}
        if step is not None:
            extra |= {"step": step, "row": value.columns or 0}
        (out,) = self.add(
            "head_linear", weight.tensor.format, n, k, {"x": value}, {name: heads * n}, reads=(weight,),
            products=heads * n * k, extra=extra,
        )  # fmt: skip
        return out

    def flash(self, q: Value, k: Value, v: Value, a: Heads) -> Value:
        """Attention over the caches: q [m, heads * head_dim] -> [m, heads * value_dim]"""
        expect(q, a.heads * a.head_dim, "flash.q")
        extra: dict[str, int | str] = {
            "heads": a.heads,
            "kv_heads": a.kv_heads,
            "head_dim": a.head_dim,
            "v_head_dim": a.value_dim,
            "window": a.window,
            "sinks": int(a.sinks is not None),
            "softcap": decimal(a.softcap) if a.softcap else "none",
        }
        row = a.kv_heads * (a.head_dim + a.value_dim)
        return self.attention("flash", {"q": q, "k": k, "v": v}, a, row, extra)

    def mla(self, q_latent: Value, q_rope: Value, cache: Value, a: Latent) -> Value:
        """Attention over the compressed cache: [m, heads * rank] and [m, heads * rope] -> [m, heads * rank]"""
        expect(q_latent, a.heads * a.rank, "mla.q_latent")
        expect(q_rope, a.heads * a.rope, "mla.q_rope")
        extra: dict[str, int | str] = {"heads": a.heads, "kv_lora": a.rank, "rope_dim": a.rope}
        inputs = {"q_latent": q_latent, "q_rope": q_rope, "cache": cache}
        return self.attention("mla", inputs, Heads(a.heads, 1, a.row, a.rank, 0, a.scale), a.row, extra)

    def topk(self, logits: Source, routing: Routing, name: str = "") -> tuple[Value, Value]:
        """logits: [m, experts] -> ids and weights of the chosen experts: [m, used] each"""
        expect(logits, routing.experts, "topk.logits")
        extra: dict[str, int | str] = {
            "experts": routing.experts,
            "used": routing.used,
            "gating": routing.gating,
            "bias": int(routing.bias is not None),
            "norm": int(routing.normalised),
            "scale": decimal(routing.scale),
        }
        if routing.groups > 1:
            extra |= {"groups": routing.groups, "used_groups": routing.used_groups}
        n, used = routing.experts, routing.used
        ids, probs = self.add(
            "topk", "F32", n, n, {"logits": logits}, {f"{name}ids": used, f"{name}probs": used},
            reads=whole(bias=routing.bias), products=n, extra=extra,
        )  # fmt: skip
        return ids, probs

    def argmax(self, logits: Source, n: int, name: str) -> Value:
        """logits: [1, n] -> [1, 1]"""
        expect(logits, n, "argmax.logits")
        (out,) = self.add("argmax", "F32", n, n, {"logits": logits}, {name: 1}, decode_only=True)
        return out

    @abstractmethod
    def rmsnorm_linear(
        self, x: Source, norm: TensorInfo, projections: Sequence[Projection], name: str
    ) -> tuple[Columns, ...]:
        """x: [m, k] -> each projection of RMSNorm(x): [m, n] each. Raises PlanError where only some have a bias."""

    @abstractmethod
    def gate_up(self, x: Source, weights: GateUp, name: str, norm: TensorInfo | None = None) -> Value:
        """x: [m, k] -> act(gate x) * (up x): [m, n]; x normalised before, if `norm` is given"""

    @abstractmethod
    def attention(
        self, kind: str, inputs: Mapping[str, Source], a: Heads, row: int, extra: dict[str, int | str]
    ) -> Value:
        """The launches of `flash` and `mla`, over a cache with `row` items a position: [m, heads * value_dim]"""

    @abstractmethod
    def experts(self, x: Source, ids: Value, probs: Value, experts: Experts, name: str, add: Source | None) -> Value:
        """x: [m, dim] -> the sum of what the chosen experts make, times their weights, and `add`: [m, dim]"""

    @abstractmethod
    def weighted_linear(self, x: Source, ids: Value, probs: Value, weight: TensorInfo, name: str, add: Source) -> Value:
        """x: [m, k] -> W x times the one weight of each token, and `add`: [m, n]"""


def added(inputs: Mapping[str, Source], add: Source | None) -> tuple[dict[str, Source], str]:
    """Inputs and epilogue of a launch that may add to a residual."""
    return (dict(inputs), "none") if add is None else ({**inputs, "residual": add}, "add")


def expect(sources: Source | Sequence[Source], columns: int, who: str) -> None:
    """Raises PlanError where what `who` takes has another number of columns."""
    if (found := width(sources)) != columns:
        said = " + ".join(map(str, joined(sources)))
        raise PlanError(f"{who} has {columns} columns, {said} has {found}")


def place(source: Source) -> tuple[Value, int]:
    """The value that columns belong to, and where they begin in it."""
    return (source.value, source.start) if isinstance(source, Columns) else (source, 0)


def neighbours(tensors: Iterable[TensorInfo]) -> list[tuple[TensorInfo, ...]]:
    """Weights that share an input: those of one format that stand side by side are one weight, of all their rows."""
    return [tuple(group) for _, group in itertools.groupby(tensors, lambda tensor: tensor.format)]


def stacked(tensors: Iterable[TensorInfo]) -> tuple[Read, ...]:
    """Weights that share an input, as the operands w0, w1, ..."""
    return tuple(Read(f"w{i}", tensor) for i, group in enumerate(neighbours(tensors)) for tensor in group)


def parts(tensors: Iterable[TensorInfo]) -> str:
    """The extra of weights that share an input, as rows of one after the other: "Q4_K.5120+Q6_K.1024"."""
    return "+".join(f"{group[0].format}.{row_count(group)}" for group in neighbours(tensors))


def expert_reads(experts: Experts, *given: tuple[Projection, str, str]) -> tuple[Read, ...]:
    """Stacked weights by operand, and what is added to their products by another."""
    return tuple(
        Read(operand, tensor, experts.used, experts.count)
        for projection, weight, bias in given
        for operand, tensor in ((weight, projection.weight), (bias, projection.bias))
        if tensor is not None
    )
