"""Runs the launches of a pass, in order, over Tensors. Knows no architecture: what goes where is in the launches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tinygrad import Tensor, UOp

from db.records import Target
from kernels.compiled import compile_all
from kernels.launch import kernel
from kernels.launch import launch as run_kernel
from kernels.llm.weights import Operands, Weights
from kernels.models.launch import Columns, Launch
from kernels.op import UPDATE, Operand
from kernels.registry import operands, variables
from kernels.upload import zeros

X_DTYPE = "float32"
Loaded = tuple[Launch, Operands]
Values = dict[str, Tensor]


@dataclass(frozen=True)
class Program:
    """Launches with their weights, caches and tables of angles, on one device.

    step: those of one token; prompt: those of many tokens at once. caches: what launches update, by name, as realized
    buffers that live as long as the model.
    """

    step: tuple[Loaded, ...]
    prompt: tuple[Loaded, ...]
    caches: Mapping[str, Tensor]
    tables: Mapping[str, Tensor]
    device: str
    target: Target

    @staticmethod
    def load(
        step: Sequence[Launch],
        prompt: Sequence[Launch],
        weights: Weights,
        tables: Mapping[str, Tensor],
        device: str,
        target: Target,
    ) -> Program:
        """Puts the weights on the device, each once, and zeros into the caches."""
        caches = {name: zeros(o.shape, o.dtype, device) for name, o in caches_of(step).items()}
        one, many = (tuple((launch, weights.operands(launch)) for launch in launches) for launches in (step, prompt))
        return Program(one, many, caches, tables, device, target)

    @property
    def launches(self) -> tuple[Launch, ...]:
        """Of one token."""
        return tuple(launch for launch, _ in self.step)

    @property
    def cache_nbytes(self) -> int:
        return sum(cache.nbytes() for cache in self.caches.values())

    def run(self, ids: Tensor, start_pos: UOp, part: slice = slice(None)) -> Values:
        """The values after the launches of `part`, for ids int32 [m] from position start_pos on. Of many tokens m is a
        bucket, and what there is in the end is the residual "x"."""
        m = int(ids.shape[0])
        found = {**self.tables, **self.caches, "ids": ids}
        for launch, weights in (self.step if m == 1 else self.prompt)[part]:
            w = launch.workload(m, X_DTYPE)
            given = {operand: _take(found, what, m) for operand, what in launch.takes.items()}
            bound = (start_pos,) if variables(w) else ()
            written = run_kernel(w, self.target, self.device, {**given, **weights}, *bound)
            found |= zip(launch.leaves, written, strict=True)
        return found

    def compile(self, sizes: Iterable[int]) -> None:
        """Compiles what `run` launches for each number of tokens: all at once, not when they run."""
        launched = (launch.workload(m, X_DTYPE) for m in sizes for launch, _ in (self.step if m == 1 else self.prompt))
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
    if isinstance(what, Columns):
        return _take(values, what.value, m).reshape(m, -1)[:, what.start : what.stop]
    if f"{what}.0" in values:
        return _take(values, tuple(name for name in values if name.startswith(f"{what}.")), m)
    return values[what]
