"""The launches of a pass over many tokens of a prompt. Each weight is a launch of its own, which is enough work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernels.models.build_attention import CACHE_ITEM_NBYTES
from kernels.models.builder import Builder
from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Experts, Gates, Projection
from kernels.models.operands import added, expect, expert_reads
from kernels.models.plan import Columns, Source, Value, whole
from kernels.ops.attention.spec import FlashPrefill, MlaPrefill
from kernels.ops.experts.spec import ExpertPlaces, ExpertProduct, ExpertSum, ExpertTiles


class PrefillBuilder(Builder):
    """Norms are separate launches. Tokens are sorted by expert, so that tokens of one expert share its weights."""

    def rmsnorm_linear(
        self, x: Source, norm: TensorInfo, projections: Sequence[Projection], name: str
    ) -> tuple[Columns, ...]:
        return self.linears(self.rmsnorm(x, norm, f"{name}_normed"), projections, name)

    def gate_up(self, x: Source, weights: Gates, name: str, norm: TensorInfo | None = None) -> Value:
        return self.gate_then_up(x, weights, name, norm)

    def attention(
        self, spec: FlashPrefill | MlaPrefill, inputs: Mapping[str, Source], sinks: TensorInfo | None
    ) -> Value:
        (out,) = self.add(
            spec, inputs, {"attended": spec.n}, reads=whole(sinks=sinks), products=spec.products,
            cache_read_nbytes=CACHE_ITEM_NBYTES * spec.seen * spec.row,
        )  # fmt: skip
        return out

    def experts(self, x: Source, ids: Value, probs: Value, experts: Experts, name: str, add: Source | None) -> Value:
        e, dim = experts, experts.sizes[0]
        (places,) = self.add(ExpertPlaces(e.count, e.used), {"ids": ids}, {"places": None})
        (tiles,) = self.add(ExpertTiles(e.count, e.used), {"places": places}, {"tiles": None})
        halves = (("w+", "bias+"), ("+w", "+bias")) if e.fused else (("w", "bias"), ("w", "bias"))
        up = e.gate if e.fused else e.up
        sorted_ids: dict[str, Source] = {"tiles": tiles, "ids": ids}
        gate = self._product(e, (e.gate, *halves[0]), {"x": x, **sorted_ids}, "experts_gate")
        gated = self._product(e, (up, *halves[1]), {"x": x, "gate": gate, **sorted_ids}, "experts_gated")
        each = self._product(e, (e.down, "w", "bias"), {"x": gated, **sorted_ids}, "experts_each")
        return self._weighted_sum(each, probs, dim, e.used, name, add)

    def _product(self, e: Experts, given: tuple[Projection, str, str], inputs: dict[str, Source], name: str) -> Value:
        """Adds a product of one of the experts' weights: with one x for each token, or one for each (token, expert).

        given: (projection, operand of its weight, operand of its bias).
        """
        dim, n = e.sizes
        per_token = given[0] is not e.down
        rows, columns = (n, dim) if per_token else (dim, n)
        expect(inputs["x"], columns * (1 if per_token else e.used), "expert_product.x")
        gated = "gate" in inputs
        spec = ExpertProduct(
            given[0].weight.format, rows, columns, e.count, e.used, "token" if per_token else "pair",
            act=e.act if gated else "silu",
            epilogue="_".join(["bias"] * (given[0].bias is not None) + ["gate"] * gated) or "none",
        )  # fmt: skip
        reads = expert_reads(e, given)
        (out,) = self.add(spec, inputs, {name: e.used * rows}, reads=reads, products=e.used * n * dim)
        return out

    def weighted_linear(self, x: Source, ids: Value, probs: Value, weight: TensorInfo, name: str, add: Source) -> Value:
        each = self.linear(x, Projection(weight), f"{name}_each")
        return self._weighted_sum(each, probs, weight.shape[0], 1, name, add)

    def _weighted_sum(self, each: Value, probs: Value, dim: int, used: int, name: str, add: Source | None) -> Value:
        """The outputs of each token's experts, [m, used * dim], weighted and summed: [m, dim]"""
        expect(each, used * dim, "expert_sum.x")
        inputs, epilogue = added({"x": each, "probs": probs}, add)
        (out,) = self.add(ExpertSum(dim, used, epilogue), inputs, {name: dim}, products=used * dim)
        return out
