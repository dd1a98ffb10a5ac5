"""The launches of a decode step, which reads every weight for one token: what can share a launch does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from db.records import decimal
from kernels.models.build_attention import CACHE_FORMAT, CACHE_ITEM_NBYTES
from kernels.models.builder import Builder
from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Experts, GateUp, Heads, Projection
from kernels.models.operands import added, expect, expert_reads, parts, place, stacked
from kernels.models.plan import Columns, PlanError, Read, Source, Value, row_count, whole
from kernels.ops.attention.splits import splits


class OneToken(Builder):
    """Norms ride along with the weights that follow them; attention is divided into runs of positions on a GPU."""

    def rmsnorm_linear(
        self, x: Source, norm: TensorInfo, projections: Sequence[Projection], name: str
    ) -> tuple[Columns, ...]:
        weights = [p.weight for p in projections]
        k, n = weights[0].shape[-1], row_count(weights)
        expect(x, k, "rmsnorm_linear.x")
        value, start = place(x)
        if start:
            raise PlanError(f"rmsnorm_linear reads x from the start of a row, not {x}")
        biases = [p.bias for p in projections if p.bias is not None]
        reads = (*whole(norm=norm), *stacked(weights), *(Read("bias", bias) for bias in biases))
        extra: dict[str, int | str] = {"parts": parts(weights), "eps": decimal(self.eps)}
        if value is not x:
            extra["x_row"] = value.columns or 0
        (out,) = self.add(
            "rmsnorm_linear", weights[0].format, n, k, {"x": value}, {name: n}, reads=reads, products=n * k,
            epilogue="bias" if biases else "none", extra=extra,
        )  # fmt: skip
        found, first = [], 0
        for p in projections:
            found.append(out[first : first + p.n])
            first += p.n
        return tuple(found)

    def gate_up(self, x: Source, weights: GateUp, name: str, norm: TensorInfo | None = None) -> Value:
        if weights.biased:
            return self.gate_then_up(x, weights, name, norm)
        gate, up, n = weights.gate, weights.up, weights.n
        expect(x, k := gate.k, "gate_up.x")
        extra: dict[str, int | str] = {"up": up.weight.format, "act": weights.act, "norm": "rms" if norm else "none"}
        if norm:
            extra["eps"] = decimal(self.eps)
        read = (Read("gate+up", gate.weight),) if weights.fused else whole(gate=gate.weight, up=up.weight)
        (out,) = self.add(
            "gate_up", gate.weight.format, n, k, {"x": x}, {name: n}, products=2 * n * k, extra=extra,
            reads=(*whole(norm=norm), *read),
        )  # fmt: skip
        return out

    def attention(
        self, kind: str, inputs: Mapping[str, Source], a: Heads, row: int, extra: dict[str, int | str]
    ) -> Value:
        seen = min(self.context, a.window or self.context)
        n, products = a.heads * a.value_dim, a.heads * seen * (a.head_dim + a.value_dim)
        count = splits(seen, a.heads, a.kv_heads, self.device)
        extra = extra | {"ctx": self.context, "max_ctx": self.context, "scale": decimal(a.scale), "splits": count}
        out, lse = self.add(
            f"{kind}_decode", CACHE_FORMAT, n, a.head_dim, inputs,
            {"attended" if count == 1 else "attended_runs": count * n, "lse": count * a.heads},
            reads=whole(sinks=a.sinks), products=products, extra=extra,
            cache_read_nbytes=CACHE_ITEM_NBYTES * seen * row, decode_only=True,
            out_dtype=None if count == 1 else "float32",
        )  # fmt: skip
        if count == 1:
            return out
        sizes: dict[str, int | str] = {"heads": a.heads, "v_head_dim": a.value_dim, "splits": count}
        (combined,) = self.add(
            "flash_combine", "F32", n, count, {"parts": out, "lse": lse}, {"attended": n}, products=2 * n * count,
            extra=sizes, decode_only=True, x_dtype="float32",
        )  # fmt: skip
        return combined

    def experts(self, x: Source, ids: Value, probs: Value, experts: Experts, name: str, add: Source | None) -> Value:
        dim, n = experts.sizes
        expect(x, dim, "expert_linear.x")
        e = experts
        if e.fused:
            first = expert_reads(e, (e.gate, "gate+up", "gate_bias+up_bias"))
        else:
            first = expert_reads(e, (e.gate, "gate", "gate_bias"), (e.up, "up", "up_bias"))
        up = e.gate if e.fused else e.up
        (gated,) = self.add(
            "expert_linear", e.gate.weight.format, n, dim, {"x": x, "ids": ids}, {"experts_gated": e.used * n},
            reads=first, products=2 * e.used * n * dim,
            extra=e.extra | {
                "form": "gate_up", "up": up.weight.format, "act": e.act, "bias": int(e.gate.bias is not None),
            },
        )  # fmt: skip
        inputs, epilogue = added({"x": gated, "ids": ids, "probs": probs}, add)
        (out,) = self.add(
            "expert_linear", e.down.weight.format, dim, n, inputs, {name: dim}, epilogue=epilogue,
            reads=expert_reads(e, (e.down, "w", "down_bias")), products=e.used * n * dim,
            extra=e.extra | {"form": "down", "bias": int(e.down.bias is not None)},
        )  # fmt: skip
        return out

    def weighted_linear(self, x: Source, ids: Value, probs: Value, weight: TensorInfo, name: str, add: Source) -> Value:
        n, k = weight.shape
        expect(x, k, "expert_linear.x")
        inputs, epilogue = added({"x": x, "ids": ids, "probs": probs}, add)
        (out,) = self.add(
            "expert_linear", weight.format, n, k, inputs, {name: n}, reads=whole(w=weight), products=n * k,
            epilogue=epilogue, extra={"experts": 1, "used": 1, "form": "down", "bias": 0},
        )  # fmt: skip
        return out
