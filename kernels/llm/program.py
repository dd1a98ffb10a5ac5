"""Runs the launches of a pass, in order, over Tensors. Knows no architecture: what goes where is in the launches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tinygrad import Tensor, UOp, dtypes

from db.records import Target
from kernels.compiled import compile_all
from kernels.launch import kernel
from kernels.launch import launch as run_kernel
from kernels.llm.many import MANY
from kernels.llm.weights import Operands, Weights
from kernels.models.launch import Columns, Launch
from kernels.op import UPDATE, Operand
from kernels.registry import operands, variables
from kernels.upload import zeros

X_DTYPE = "float32"
Values = dict[str, Tensor]


@dataclass(frozen=True)
class Program:
    """Launches with their weights, caches and tables of angles, on one device.

    caches: what launches update, by name, as realized buffers that live as long as the model.
    """

    launches: tuple[Launch, ...]
    weights: tuple[Operands, ...]
    caches: Mapping[str, Tensor]
    tables: Mapping[str, Tensor]
    device: str
    target: Target

    @staticmethod
    def load(
        launches: Sequence[Launch], weights: Weights, tables: Mapping[str, Tensor], device: str, target: Target
    ) -> Program:
        """Puts the weights on the device, and zeros into the caches."""
        caches = {name: zeros(o.shape, o.dtype, device) for name, o in caches_of(launches).items()}
        loaded = tuple(weights.operands(step) for step in launches)
        return Program(tuple(launches), loaded, caches, tables, device, target)

    @property
    def cache_nbytes(self) -> int:
        return sum(cache.nbytes() for cache in self.caches.values())

    def run(self, values: Values, m: int, start_pos: UOp, part: slice = slice(None)) -> Values:
        """The values after the launches of `part`, for m tokens (a bucket) from position start_pos on. `values` are
        those before: `ids` int32 [m] for the first launch."""
        found = {**self.tables, **self.caches, **values}
        for step, weights in zip(self.launches[part], self.weights[part], strict=True):
            if m > 1 and step.op == "flash_combine":
                continue
            given = {operand: _take(found, what, m) for operand, what in step.takes.items()}
            if m > 1 and step.op in MANY:
                # by itself, so that it is not computed anew in every launch that takes it
                found["attended"] = MANY[step.op]({**given, **_tensors(weights)}, start_pos, step.extra).contiguous()
            else:
                w = step.workload(m, X_DTYPE)
                bound = (start_pos,) if variables(w) else ()
                written = run_kernel(w, self.target, self.device, {**given, **weights}, *bound)
                found |= zip(step.leaves, written, strict=True)
        return found

    def compile(self, parts: Mapping[int, slice]) -> None:
        """Compiles what `run` launches for m tokens of part, for each in `parts`: all at once, not when they run."""
        launched = (
            step.workload(m, X_DTYPE)
            for m, part in parts.items()
            for step in self.launches[part]
            if m == 1 or (step.op not in MANY and step.op != "flash_combine")
        )
        compile_all((kernel(w, self.target, self.device) for w in dict.fromkeys(launched)), self.device)


def caches_of(launches: Iterable[Launch]) -> dict[str, Operand]:
    """What launches update, by name."""
    return {
        str(step.takes[o.name]): o for step in launches for o in operands(step.workload(1, X_DTYPE)) if o.role == UPDATE
    }


def _take(values: Mapping[str, Tensor], what: str | Columns | tuple[str | Columns, ...], m: int) -> Tensor:
    if isinstance(what, tuple):
        parts = [_take(values, part, m).reshape(m, -1) for part in what]
        return parts[0].cat(*parts[1:], dim=-1)
    return values[what] if isinstance(what, str) else values[what.value].reshape(m, -1)[:, what.start : what.stop]


def _tensors(weights: Operands) -> Values:
    """Those operands that are no packed weights."""
    return {name: value.cast(dtypes.float32) for name, value in weights.items() if isinstance(value, Tensor)}
