"""The interface by which `attention`, `ffn` and `passes` add the launches of a model to a pass.

A method takes values and tensors of the file, adds one or more launches, and returns the values that they produce.
`name` is the label of the value that it returns. Shapes in comments are [tokens, columns]; m is the number of tokens.
A prompt's many tokens are work enough for a launch of each weight. `DecodeBuilder` overrides what is fused for one
token: the methods of this file, and `attention`.
"""

from __future__ import annotations

from collections.abc import Sequence

from kernels.models.build_experts import ExpertBuilder
from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Experts, Gates, Projection
from kernels.models.operands import added, expect, expert_reads
from kernels.models.plan import Columns, Source, Value
from kernels.ops.experts.spec import ExpertPlaces, ExpertProduct, ExpertSum, ExpertTiles


class Builder(ExpertBuilder):
    """The launches of a pass over many tokens."""

    def rmsnorm_linear(
        self, x: Source, norm: TensorInfo, projections: Sequence[Projection], name: str
    ) -> tuple[Columns, ...]:
        """x: [m, k] -> RMSNorm(x) times each projection, each [m, n of the projection]. Either all projections have a
        bias or none has."""
        return self.linears(x, projections, name, norm)

    def gate_up(self, x: Source, weights: Gates, name: str, norm: TensorInfo | None = None) -> Value:
        """x: [m, k] -> act(gate x) * (up x): [m, n]. If `norm` is given, x is normalised first."""
        gate, up, n = weights.gate, weights.up, weights.n
        halves = ("w+", "+w") if weights.fused else ("w", "w")
        gated = self._linear(x, [gate.weight], [gate.bias], f"{name}_gate", norm=norm, operand=halves[0], n=n)
        return self._linear(
            x, [up.weight], [up.bias], name, norm=norm, operand=halves[1], n=n, gate=gated, act=weights.act
        )

    def experts(self, x: Source, ids: Value, probs: Value, experts: Experts, name: str, add: Source | None) -> Value:
        """x: [m, dim] -> the sum of the selected experts' outputs, each times its weight in `probs`, plus `add` if it
        is given: [m, dim]. ids, probs: the numbers and the weights of each token's experts, [m, used] each.

        Tokens are sorted by expert, so that tokens of one expert share its weights; but not those of linears that read
        int8."""
        e, dim = experts, experts.sizes[0]
        gate_up_int8, down_int8 = self.reads_int8(e.gate.weight, e.up.weight), self.reads_int8(e.down.weight)
        sorted_ids = {} if gate_up_int8 and down_int8 else self._sorted(ids, e)
        gated = self.experts_gated(x, ids, e) if gate_up_int8 else self._gated(x, e, sorted_ids)
        if down_int8:
            return self.experts_sum(gated, ids, probs, e, name, add)
        each = self._product(e, (e.down, "w", "bias"), {"x": gated, **sorted_ids}, "experts_each")
        return self._weighted_sum(each, probs, dim, e.used, name, add)

    def _sorted(self, ids: Value, e: Experts) -> dict[str, Source]:
        """The pairs of a token and an expert, sorted by expert, as operands of products. ids: [m, used]"""
        (places,) = self.add(ExpertPlaces(e.count, e.used), {"ids": ids}, {"places": None})
        (tiles,) = self.add(ExpertTiles(e.count, e.used), {"places": places}, {"tiles": None})
        return {"tiles": tiles, "ids": ids}

    def _gated(self, x: Source, e: Experts, sorted_ids: dict[str, Source]) -> Value:
        """x: [m, dim] -> act(gate x) * (up x) of each selected expert: [m, used * n]"""
        halves = (("w+", "bias+"), ("+w", "+bias")) if e.fused else (("w", "bias"), ("w", "bias"))
        gate = self._product(e, (e.gate, *halves[0]), {"x": x, **sorted_ids}, "experts_gate")
        return self._product(e, (e.up, *halves[1]), {"x": x, "gate": gate, **sorted_ids}, "experts_gated")

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
        """x: [m, k] -> W x times one factor for each token, plus `add`: [m, n]. It is the second half of a gated shared
        expert: probs [m, 1] are the factors, and ids [m, 1] are zeros, as the kernel is that of a single expert."""
        each = self.linear(x, Projection(weight), f"{name}_each")
        return self._weighted_sum(each, probs, weight.shape[0], 1, name, add)

    def _weighted_sum(self, each: Value, probs: Value, dim: int, used: int, name: str, add: Source | None) -> Value:
        """The outputs of each token's experts, [m, used * dim], weighted and summed: [m, dim]"""
        expect(each, used * dim, "expert_sum.x")
        inputs, epilogue = added({"x": each, "probs": probs}, add)
        (out,) = self.add(ExpertSum(dim, used, epilogue), inputs, {name: dim}, products=used * dim)
        return out
