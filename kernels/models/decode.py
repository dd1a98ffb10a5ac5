"""The launches of a decode step. Every weight is read for one token, so operations share launches wherever possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernels.models.build_attention import CACHE_ITEM_NBYTES, Attention
from kernels.models.builder import Builder
from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Experts, Gates, Projection
from kernels.models.operands import added, expect, parts, place, stacked
from kernels.models.plan import Columns, PlanError, Read, Source, Value, row_count, whole
from kernels.ops.attention.spec import FlashCombine
from kernels.ops.attention.splits import splits
from kernels.ops.experts.spec import ExpertLinear
from kernels.ops.host_attention.spec import HostCombine, HostPrefill
from kernels.ops.host_attention.spec import splits as host_splits
from kernels.ops.linear.spec import GateUp, RmsNormLinear
from kernels.ops.q8.spec import Q8


class DecodeBuilder(Builder):
    """Norms are fused with the linears that follow, or with the launch that quantises for them. On a GPU, attention is
    split over the context."""

    def rmsnorm_linear(
        self, x: Source, norm: TensorInfo, projections: Sequence[Projection], name: str
    ) -> tuple[Columns, ...]:
        weights = [p.weight for p in projections]
        if any(map(self.reads_int8, weights)):
            return super().rmsnorm_linear(x, norm, projections, name)
        k, n = weights[0].shape[-1], row_count(weights)
        expect(x, k, "rmsnorm_linear.x")
        value, start = place(x)
        if start:
            raise PlanError(f"rmsnorm_linear reads x from the start of a row, not {x}")
        biases = [p.bias for p in projections if p.bias is not None]
        reads = (*whole(norm=norm), *stacked(weights), *(Read("bias", bias) for bias in biases))
        spec = RmsNormLinear(parts(weights), k, value.columns or 0, self.eps, "bias" if biases else "none")
        (out,) = self.add(spec, {"x": value}, {name: n}, reads=reads, products=n * k)
        return out.split(p.n for p in projections)

    def gate_up(self, x: Source, weights: Gates, name: str, norm: TensorInfo | None = None) -> Value:
        gate, up, n = weights.gate, weights.up, weights.n
        int8 = self.reads_int8(gate.weight)
        if weights.biased or int8 != self.reads_int8(up.weight):
            return super().gate_up(x, weights, name, norm)
        expect(x, k := gate.k, "gate_up.x")
        if int8:
            x, norm = self.quantised(x, norm), None
        spec = GateUp(gate.weight.format, n, k, up.weight.format, weights.act, self.eps if norm else None)
        read = (Read("gate+up", gate.weight),) if weights.fused else whole(gate=gate.weight, up=up.weight)
        reads = (*whole(norm=norm), *read)
        (out,) = self.add(spec, {"x": x}, {name: n}, products=2 * n * k, reads=reads, x_dtype=Q8 if int8 else None)
        return out

    def attention(self, spec: Attention, inputs: Mapping[str, Source], sinks: TensorInfo | None) -> Value:
        n, on_host = spec.n, isinstance(spec, HostPrefill)
        if on_host:
            count = host_splits(spec.seen, spec.kv_heads)
        else:
            count = splits(spec.seen, spec.heads, spec.kv_heads, self.device)
        combine = HostCombine if on_host else FlashCombine
        out, lse = self.add(
            spec.one_token(count), inputs,
            {"attended" if count == 1 else "attended_runs": count * n, "lse": count * spec.heads},
            reads=whole(sinks=sinks), products=spec.products, decode_only=True,
            cache_read_nbytes=CACHE_ITEM_NBYTES * spec.seen * spec.row, out_dtype=None if count == 1 else "float32",
        )  # fmt: skip
        if count == 1:
            return out
        (combined,) = self.add(
            combine(spec.heads, spec.v_head_dim, count), {"parts": out, "lse": lse}, {"attended": n},
            products=2 * n * count, decode_only=True, x_dtype="float32",
        )  # fmt: skip
        return combined

    def experts(self, x: Source, ids: Value, probs: Value, experts: Experts, name: str, add: Source | None) -> Value:
        return self.experts_sum(self.experts_gated(x, ids, experts), ids, probs, experts, name, add)

    def weighted_linear(self, x: Source, ids: Value, probs: Value, weight: TensorInfo, name: str, add: Source) -> Value:
        n, k = weight.shape
        expect(x, k, "expert_linear.x")
        x, x_dtype = self.prepared(x, [weight])
        inputs, epilogue = added({"x": x, "ids": ids, "probs": probs}, add)
        spec = ExpertLinear(weight.format, n, k, experts=1, used=1, form="down", epilogue=epilogue)
        (out,) = self.add(spec, inputs, {name: n}, reads=whole(w=weight), products=n * k, x_dtype=x_dtype)
        return out
