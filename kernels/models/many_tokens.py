"""The launches of a pass over many tokens of a prompt: each weight is a product by itself, which is work enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from db.records import decimal
from kernels.models.build_attention import CACHE_FORMAT, CACHE_ITEM_NBYTES
from kernels.models.builder import Builder
from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Experts, GateUp, Heads, Projection
from kernels.models.operands import added, expect, expert_reads
from kernels.models.plan import Columns, Source, Value, whole


class ManyTokens(Builder):
    """Norms are launches of their own; tokens are sorted by expert, so that they share an expert's weights."""

    def rmsnorm_linear(
        self, x: Source, norm: TensorInfo, projections: Sequence[Projection], name: str
    ) -> tuple[Columns, ...]:
        return self.linears(self.rmsnorm(x, norm, f"{name}_normed"), projections, name)

    def gate_up(self, x: Source, weights: GateUp, name: str, norm: TensorInfo | None = None) -> Value:
        return self.gate_then_up(x, weights, name, norm)

    def attention(
        self, kind: str, inputs: Mapping[str, Source], a: Heads, row: int, extra: dict[str, int | str]
    ) -> Value:
        seen = min(self.context, a.window or self.context)
        n = a.heads * a.value_dim
        (out,) = self.add(
            f"{kind}_prefill", CACHE_FORMAT, n, a.head_dim, inputs, {"attended": n}, reads=whole(sinks=a.sinks),
            products=a.heads * seen * (a.head_dim + a.value_dim), cache_read_nbytes=CACHE_ITEM_NBYTES * seen * row,
            extra=extra | {"ctx": self.context, "max_ctx": self.context, "scale": decimal(a.scale)},
        )  # fmt: skip
        return out

    def experts(self, x: Source, ids: Value, probs: Value, experts: Experts, name: str, add: Source | None) -> Value:
        e, dim, count = experts, experts.sizes[0], experts.count
        (places,) = self.add("expert_places", "F32", count, count, {"ids": ids}, {"places": None}, extra=e.extra)
        (tiles,) = self.add("expert_tiles", "F32", count, count, {"places": places}, {"tiles": None}, extra=e.extra)
        halves = (("w+", "bias+"), ("+w", "+bias")) if e.fused else (("w", "bias"), ("w", "bias"))
        up = e.gate if e.fused else e.up
        sorted_ids: dict[str, Source] = {"tiles": tiles, "ids": ids}
        gate = self._product(e, (e.gate, *halves[0]), {"x": x, **sorted_ids}, "experts_gate")
        gated = self._product(e, (up, *halves[1]), {"x": x, "gate": gate, **sorted_ids}, "experts_gated")
        each = self._product(e, (e.down, "w", "bias"), {"x": gated, **sorted_ids}, "experts_each")
        return self._weighted_sum(each, probs, dim, e.used, name, add)

    def _product(self, e: Experts, given: tuple[Projection, str, str], inputs: dict[str, Source], name: str) -> Value:
        """A weight of the experts times an x of the token, or of each of its experts."""
        dim, n = e.sizes
        per_token = given[0] is not e.down
        rows, columns = (n, dim) if per_token else (dim, n)
        expect(inputs["x"], columns * (1 if per_token else e.used), "expert_product.x")
        gated = "gate" in inputs
        extra: dict[str, int | str] = {**e.extra, "of": "token" if per_token else "pair"}
        (out,) = self.add(
            "expert_product", given[0].weight.format, rows, columns, inputs, {name: e.used * rows},
            reads=expert_reads(e, given), products=e.used * n * dim, extra=extra | ({"act": e.act} if gated else {}),
            epilogue="_".join(["bias"] * (given[0].bias is not None) + ["gate"] * gated) or "none",
        )  # fmt: skip
        return out

    def weighted_linear(self, x: Source, ids: Value, probs: Value, weight: TensorInfo, name: str, add: Source) -> Value:
        each = self.linear(x, Projection(weight), f"{name}_each")
        return self._weighted_sum(each, probs, weight.shape[0], 1, name, add)

    def _weighted_sum(self, each: Value, probs: Value, dim: int, used: int, name: str, add: Source | None) -> Value:
        """What each of a token's experts made, [m, used * dim], times its routing weight: [m, dim]"""
        expect(each, used * dim, "expert_sum.x")
        inputs, epilogue = added({"x": each, "probs": probs}, add)
        (out,) = self.add(
            "expert_sum", "F32", dim, dim, inputs, {name: dim}, products=used * dim, epilogue=epilogue,
            extra={"used": used},
        )  # fmt: skip
        return out
