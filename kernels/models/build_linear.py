"""The launches of linears, embeddings, top-k and argmax, one method each. None depends on a cache or position."""

from __future__ import annotations

from collections.abc import Sequence

from kernels import backends
from kernels.models.build_activations import ActivationBuilder
from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Projection
from kernels.models.operands import expect, neighbours, place
from kernels.models.plan import Columns, PlanError, Read, Source, Value, row_count, whole
from kernels.ops.argmax.host_spec import HostArgMax, HostPeaks
from kernels.ops.argmax.spec import ArgMax
from kernels.ops.embed.spec import Embed
from kernels.ops.linear.spec import HeadLinear, Linear
from kernels.ops.q8.spec import BLOCK, Q8
from kernels.ops.topk.spec import TopK


class LinearBuilder(ActivationBuilder):
    """Adds linears, whose x is prepared as their weights ask for."""

    def embed(self, ids: Value, table: TensorInfo, scale: float, name: str, x_dtype: str | None = None) -> Value:
        """ids: [m] -> rows of the table times scale: [m, k]. x_dtype: Q8 if the table is in tiles."""
        rows, k = table.shape
        spec, reads = Embed(table.format, rows, k, scale), (Read("w", table, 1, rows),)
        (out,) = self.add(spec, {"ids": ids}, {name: k}, reads=reads, x_dtype=x_dtype)
        return out

    def linear(self, x: Source, projection: Projection, name: str, add: Source | None = None) -> Value:
        """x: [m, k] -> W x + bias + add: [m, n]"""
        return self._linear(x, [projection.weight], [projection.bias], name, add=add)

    def linears(
        self, x: Source, projections: Sequence[Projection], name: str, norm: TensorInfo | None = None
    ) -> tuple[Columns, ...]:
        """x: [m, k] -> each projection of x, or of RMSNorm(x) if `norm` is given: [m, n] each. Adjacent projections in
        one format share a launch."""
        groups = neighbours(p.weight for p in projections)
        found: list[Columns] = []
        for i, group in enumerate(groups):
            of_group = projections[len(found) : len(found) + len(group)]
            label = f"{name}.{i}" if len(groups) > 1 else name
            out = self._linear(x, group, [p.bias for p in of_group], label, norm=norm)
            found += out.split(p.n for p in of_group)
        return tuple(found)

    def _linear(
        self,
        x: Source,
        weights: Sequence[TensorInfo],
        biases: Sequence[TensorInfo | None],
        name: str,
        *,
        norm: TensorInfo | None = None,
        operand: str = "w",
        n: int | None = None,
        add: Source | None = None,
        gate: Source | None = None,
        act: str = "silu",
    ) -> Value:
        """One launch over weights of one format, whose rows are concatenated. operand, n: select a part of a tensor's
        rows (`Read`)."""
        n = row_count(weights) if n is None else n
        format, k = weights[0].format, weights[0].shape[-1]
        expect(x, k, "linear.x")
        found = [bias for bias in biases if bias is not None]
        prepared, x_dtype = self.prepared(x, weights, norm)
        inputs: dict[str, Source] = {"x": prepared}
        terms = ["bias"] if found else []
        for term, source in (("add", add), ("gate", gate)):
            if source is not None:
                expect(source, n, f"linear.{term}")
                inputs["residual" if term == "add" else term] = source
                terms.append(term)
        reads = *(Read(operand, w) for w in weights), *(Read("bias", bias) for bias in found)
        spec = Linear(format, n, k, "_".join(terms) or "none", act)
        (out,) = self.add(spec, inputs, {name: n}, reads=reads, products=n * k, x_dtype=x_dtype)
        return out

    def head_linear(self, x: Source, weight: Read, name: str, step: int | None = None) -> Value:
        """x: [m, heads * step] -> for each head, its matrix of weight [heads, n, k] times its columns: [m, heads * n].

        step: the distance between the first columns of two heads. Each head's first k columns are read. None means k.
        """
        heads, n, k = weight.tensor.shape
        step = step or k
        expect(x, heads * step, f"head_linear.x of {weight.tensor.name}")
        value, start = place(x)
        if start:
            raise PlanError(f"head_linear reads x from the start of a row, not {x}")
        row, x_dtype = value.columns or 0, None
        if self.reads_int8(weight.tensor) and step % BLOCK == 0:
            value, row, x_dtype = self.quantised(x), heads * step, Q8
        spec = HeadLinear(weight.tensor.format, n, k, heads, step, row)
        facts = {"reads": (weight,), "products": heads * n * k, "x_dtype": x_dtype}
        (out,) = self.add(spec, {"x": value}, {name: heads * n}, **facts)
        return out

    def topk(self, logits: Source, spec: TopK, bias: TensorInfo | None = None, name: str = "") -> tuple[Value, Value]:
        """logits: [m, experts] -> ids and weights of the selected experts: [m, used] each"""
        expect(logits, spec.experts, "topk.logits")
        made = {f"{name}ids": spec.used, f"{name}probs": spec.used}
        ids, probs = self.add(spec, {"logits": logits}, made, reads=whole(bias=bias), products=spec.n)
        return ids, probs

    def argmax(self, logits: Source, n: int, name: str) -> Value:
        """logits: [1, n] -> [1, 1]"""
        expect(logits, n, "argmax.logits")
        if not backends.find(self.device).host:
            (out,) = self.add(ArgMax(n), {"logits": logits}, {name: 1}, decode_only=True)
            return out
        peaks = HostPeaks(n)
        (found,) = self.add(peaks, {"logits": logits}, {f"{name}_peaks": peaks.blocks}, decode_only=True)
        (out,) = self.add(HostArgMax(n), {"logits": logits, "peaks": found}, {name: 1}, decode_only=True)
        return out
