"""The launches of experts in which each token reads the weights of its own experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernels.models.build_attention import AttentionBuilder
from kernels.models.layer_parts import Experts
from kernels.models.operands import added, expect, expert_reads
from kernels.models.plan import Source, Value
from kernels.ops.experts.spec import ExpertLinear


class ExpertBuilder(AttentionBuilder):
    """Adds the two halves of a mixture of experts, one launch each."""

    def experts_gated(self, x: Source, ids: Value, e: Experts) -> Value:
        """x: [m, dim] -> act(gate x) * (up x) of each selected expert: [m, used * n]. ids: [m, used]"""
        dim, n = e.sizes
        expect(x, dim, "expert_linear.x")
        if e.fused:
            reads = expert_reads(e, (e.gate, "gate+up", "gate_bias+up_bias"))
        else:
            reads = expert_reads(e, (e.gate, "gate", "gate_bias"), (e.up, "up", "up_bias"))
        spec = ExpertLinear(
            e.gate.weight.format, n, dim, e.count, e.used, "gate_up", e.up.weight.format, e.act, e.gate.bias is not None
        )
        x, x_dtype = self.prepared(x, [e.gate.weight, e.up.weight])
        facts: Mapping[str, Any] = {"reads": reads, "products": 2 * e.used * n * dim, "x_dtype": x_dtype}
        (gated,) = self.add(spec, {"x": x, "ids": ids}, {"experts_gated": e.used * n}, **facts)
        return gated

    def experts_sum(self, gated: Value, ids: Value, probs: Value, e: Experts, name: str, add: Source | None) -> Value:
        """gated: [m, used * n] -> the sum of the selected experts' outputs, each times its weight in `probs`, plus
        `add` if it is given: [m, dim]. ids, probs: [m, used]"""
        dim, n = e.sizes
        x, x_dtype = self.prepared(gated, [e.down.weight])
        inputs, epilogue = added({"x": x, "ids": ids, "probs": probs}, add)
        bias = e.down.bias is not None
        spec = ExpertLinear(e.down.weight.format, dim, n, e.count, e.used, "down", bias=bias, epilogue=epilogue)
        reads = expert_reads(e, (e.down, "w", "down_bias"))
        facts: Mapping[str, Any] = {"reads": reads, "products": e.used * n * dim, "x_dtype": x_dtype}
        (out,) = self.add(spec, inputs, {name: dim}, **facts)
        return out
