"""A whole model in numpy: the launches that are planned for it, each by the reference of its op, in float64.

No kernel is compiled, so that what a plan means can be held against llama.cpp in a second. Neither caches nor
activations are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kernels.llm import angles
from kernels.llm.shapes import state
from kernels.llm.weights import RawWeight, Weights
from kernels.models.header import read_header
from kernels.models.passes import plan_passes
from kernels.models.plan import Columns, PlannedLaunch, Source, Value
from kernels.ops.case import Array, Doubles, Inputs, PackedRows
from kernels.ops.op import OUT, UPDATE
from kernels.ops.references import truths
from kernels.ops.registry import operands

DTYPE = "float32"  # that the launches are planned for


@dataclass(frozen=True)
class _Weight(PackedRows):
    """A weight that is dequantised once, not for every token."""

    doubles: list[Doubles] = field(default_factory=list)

    def _all(self) -> Doubles:
        if not self.doubles:
            self.doubles.append(super().rows(np.arange(len(self.raw))))
        return self.doubles[0]

    def rows(self, which: Array) -> Doubles:
        return self._all()[which % len(self.raw)]

    def times(self, x: Doubles) -> tuple[Doubles, Doubles]:
        return x @ self._all().T, np.linalg.norm(self._all(), axis=1)


class NumpyModel:
    """The model of a GGUF file, with empty caches of `context` positions. device: that its passes are planned for."""

    def __init__(self, path: Path, context: int, device: str = "CPU") -> None:
        header = read_header(path)
        self.passes = plan_passes(header, context, device, exact=True)
        model = self.passes.model
        assert model is not None
        self._weights, self._read = Weights(header, "CPU"), {}
        self._factor, self._cap = model.logit_factor, model.logit_cap
        factors = {t.name: self._weights.floats(t) for t in header.tensors if t.name.startswith("rope_f")}
        caches = {label: np.zeros(o.shape) for label, o in state(self.passes.decode, DTYPE).items()}
        self._state: dict[str, Array] = {**angles.tables(model, model.context, factors), **caches}

    def read(self, tokens: Sequence[int], sizes: Sequence[int], start: int = 0) -> tuple[Doubles, int]:
        """The logits after `tokens`, [vocabulary], and the token that is chosen.

        sizes: how many tokens each pass reads, first to last. start: the position of the first token.
        """
        assert sum(sizes) == len(tokens)
        for size in sizes:
            results, start, tokens = self._pass(tokens[:size], start), start + size, tokens[size:]
        if "residual" in results:
            results = self._head(results["residual"])
        row = results["logits"].reshape(-1) * self._factor
        return np.tanh(row / self._cap) * self._cap if self._cap else row, int(results["next"].item())

    def _head(self, residual: Array) -> dict[str, Array]:
        """What a decode step ends with, after the last row of a prompt's residual [m, dim]."""
        found = self.passes.decode
        last = [launch for launch in found.launches if launch.layer is None and "ids" not in launch.inputs]
        (x,) = last[0].inputs["x"]
        assert isinstance(x, Value)
        values = {x: residual[-1:]}
        for launch in last:
            values |= self._launch(launch, values, 1, 0)
        return {name: values[value] for name, value in found.results.items()}

    def _pass(self, ids: Sequence[int], position: int) -> dict[str, Array]:
        """The results of a pass over one token or many."""
        found = self.passes.decode if len(ids) == 1 else self.passes.prompt
        there = {**self._state, "ids": np.array(ids, np.int32)}
        values = {value: there[label] for label, value in found.inputs.items()}
        for launch in found.until(*found.results):
            values |= self._launch(launch, values, len(ids), position)
        self._state |= {label: values[value] for label, value in found.inputs.items() if value.persistent}
        return {name: values[value] for name, value in found.results.items()}

    def _launch(self, launch: PlannedLaunch, values: dict[Value, Array], m: int, position: int) -> dict[Value, Array]:
        w = launch.workload(m, DTYPE)
        arrays, weights = self._host(launch)
        given = {operand: _gathered(values, sources, m) for operand, sources in launch.inputs.items()}
        shapes = {o.name: o.shape for o in operands(w)}
        taken = shapes.keys() | {name.partition(".")[0] for name in shapes}
        assert arrays.keys() | weights.keys() <= taken, f"{launch} reads what its kernel does not take"
        given = {name: array.reshape(shapes[name]) for name, array in given.items() if name in shapes}
        wanted = truths(w, Inputs({**arrays, **given}, weights, position))
        made = {}
        for value, o in zip(launch.outputs, (o for o in operands(w) if o.role in (OUT, UPDATE)), strict=True):
            rows = wanted[o.name].rows(0, wanted[o.name].m)[0].reshape(o.shape)
            made[value] = rows.astype(np.int32) if o.dtype.name == "int" else rows
            if o.role == UPDATE:  # the cache that it was given is what it wrote
                (cache,) = launch.inputs[o.name]
                made |= {cache: made[value]} if isinstance(cache, Value) else {}
        return made

    def _host(self, launch: PlannedLaunch) -> tuple[dict[str, Array], dict[str, PackedRows]]:
        if id(launch) not in self._read:
            arrays, weights = {}, {}
            for name, found in self._weights.host(launch).items():
                if isinstance(found, RawWeight):
                    weights[name] = _Weight(found.format, found.rows, len(found.rows), found.k)
                else:
                    arrays[name] = found
            self._read[id(launch)] = arrays, weights
        return self._read[id(launch)]


def _gathered(values: dict[Value, Array], sources: Sequence[Source], m: int) -> Array:
    """Sources side by side."""
    if len(sources) == 1 and isinstance(sources[0], Value):
        return values[sources[0]]
    return np.concatenate([
        values[s.value].reshape(m, -1)[:, s.start : s.stop] if isinstance(s, Columns) else values[s].reshape(m, -1)
        for s in sources
    ], axis=1)  # fmt: skip
