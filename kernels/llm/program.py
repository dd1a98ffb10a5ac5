"""Runs the launches of a pass over Tensors, in order. Each launch says what it reads, so no architecture is known
here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tinygrad import Tensor, UOp

from db.records import Target, Workload
from kernels.api.launch import empty
from kernels.api.launch import launch as run_kernel
from kernels.llm.shapes import X_DTYPE, check_shapes, state
from kernels.llm.weights import Operands, Weights
from kernels.models.passes import Passes
from kernels.models.plan import Columns, Pass, PlannedLaunch, Source, Value
from kernels.ops.op import START, Operand
from kernels.ops.registry import variables
from kernels.serve.server import shared
from kernels.tinygrad.capture import Bound
from kernels.tinygrad.upload import zeros


@dataclass
class ExecutedLaunch:
    """A launch that was added to the graph. given: the operands that it read. written: those that it wrote, in slot
    order. A caller may replace items of `written`; later launches read the replacements."""

    launch: PlannedLaunch
    workload: Workload
    given: Mapping[str, Tensor | Sequence[Tensor]]
    written: list[Tensor]


@dataclass(frozen=True)
class LoadedPass:
    """A pass, and the operands that each of its launches reads from the file."""

    plan: Pass
    weights: tuple[Operands, ...]

    @property
    def launches(self) -> tuple[PlannedLaunch, ...]:
        return self.plan.launches


@dataclass(frozen=True)
class Program:
    """The two passes of a model with their weights, caches and tables of angles, on one device.

    state: the caches and tables, by label, as realized buffers that live as long as the model. context: the number of
    positions in the caches.
    """

    decode: LoadedPass
    prompt: LoadedPass
    state: Mapping[str, Tensor]
    context: int
    device: str
    target: Target

    @staticmethod
    def load(
        plan: Passes,
        context: int,
        sizes: Iterable[int],
        weights: Weights,
        tables: Mapping[str, Tensor],
        device: str,
        target: Target,
    ) -> Program:
        """Uploads each weight once, and fills the caches with zeros.

        sizes: the numbers of tokens that passes will have. Raises PlanError if a value does not fit an operand.
        """
        for m in sizes:
            check_shapes(plan.decode if m == 1 else plan.prompt, m, X_DTYPE)
        caches = {label: zeros(o.shape, o.dtype, device) for label, o in state(plan.decode, X_DTYPE).items()}
        decode, prompt = (LoadedPass(p, tuple(map(weights.operands, p.launches))) for p in (plan.decode, plan.prompt))
        return Program(decode, prompt, {**tables, **caches}, context, device, target)

    def position(self, at: int) -> UOp:
        """A position of the context as the bound Variable that launches read."""
        return self.bound(at).bind()

    def bound(self, at: int) -> Bound:
        """A position of the context, for captured functions."""
        return Bound(self._start, at)

    @cached_property
    def _start(self) -> UOp:
        return UOp.variable(START, 0, self.context - 1)

    def of(self, m: int) -> LoadedPass:
        """The pass over m tokens."""
        return self.decode if m == 1 else self.prompt

    @property
    def cache_nbytes(self) -> int:
        return sum(self.state[label].nbytes() for label, value in self.decode.plan.inputs.items() if value.persistent)

    def run(self, ids: Tensor, start_pos: UOp, *results: str) -> tuple[Tensor, ...]:
        """Runs a pass over ids int32 [m], the first of which is at start_pos. results: names of results of the pass
        (`kernels.models.passes.Passes`)."""
        wanted = [self.of(int(ids.shape[0])).plan.results[name] for name in results]
        found: dict[Value, Tensor] = {}
        for step in self.steps(ids, start_pos, *results):
            found |= zip(step.launch.outputs, step.written, strict=True)
        return tuple(found[value] for value in wanted)

    def steps(
        self,
        ids: Tensor,
        start_pos: UOp,
        *results: str,
        out: Callable[[Operand, str], Tensor] = empty,
    ) -> Iterator[ExecutedLaunch]:
        """Adds the launches that `results` need to the graph, and yields each after it is added.

        out: makes the buffer of an operand of role `out` on a device.
        """
        m = int(ids.shape[0])
        loaded, there = self.of(m), {**self.state, "ids": ids}
        values = {value: there[label] for label, value in loaded.plan.inputs.items()}
        for launch, weights in zip(loaded.plan.until(*results), loaded.weights, strict=False):
            w = launch.workload(m, X_DTYPE)
            inputs = {operand: _gathered(values, sources, m) for operand, sources in launch.inputs.items()}
            given = {**inputs, **weights}
            bound = (start_pos,) if variables(w) else ()
            written = run_kernel(w, self.device, given, *bound, out=out)
            step = ExecutedLaunch(launch, w, given, list(written))
            yield step
            values |= zip(launch.outputs, step.written, strict=True)

    def compile(self, sizes: Iterable[int]) -> None:
        """Compiles together the kernels that `run` launches for these numbers of tokens."""
        launched = (launch.workload(m, X_DTYPE) for m in sizes for launch in self.of(m).launches)
        shared().compile(launched, self.device)


def _gathered(values: Mapping[Value, Tensor], sources: Sequence[Source], m: int) -> Tensor:
    """The concatenated sources. A single whole value is returned without a copy."""
    if len(sources) == 1 and isinstance(sources[0], Value):
        return values[sources[0]]
    parts = [
        values[s.value].reshape(m, -1)[:, s.start : s.stop] if isinstance(s, Columns) else values[s].reshape(m, -1)
        for s in sources
    ]
    return parts[0].cat(*parts[1:], dim=-1) if len(parts) > 1 else parts[0]
