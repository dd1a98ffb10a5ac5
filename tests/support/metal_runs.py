"""Kernels of ours as Metal source, run by the simulator and judged against their references."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.metalsim import Launch, Result, metal_renderer, run_orders
from autotune.tinygrad_api.lower import Program, compile_program
from autotune.validate import Verdict, dtype_name, initial, judge
from db.records import Outcome, Schedule, Workload
from kernels.references import make_case
from kernels.references.case import Case, outputs
from kernels.registry import operands, tuned_values
from kernels.sink import build
from kernels.tolerance import tolerance

RENDERER = metal_renderer("Apple9")
WRONG = "wrong_result"


@dataclass(frozen=True)
class MetalKernel:
    """A workload's kernel as Metal source, with a case to run it on."""

    workload: Workload
    variant: str
    program: Program
    case: Case

    @property
    def source(self) -> str:
        return self.program.source

    @property
    def launch(self) -> Launch:
        groups, threads = self.program.launch_dims(tuned_values(self.workload))
        return Launch(groups, threads or (1,))

    def run(self, source: str, launch: Launch) -> tuple[str, Result]:
        """The kind of the first verdict of three orders that is not ok, or WRONG, or "ok"; and what was run."""
        values = self.program.uop.arg.vals(tuned_values(self.workload))
        given = [self._array(slot) for slot in self.program.uop.arg.globals]
        result = run_orders(source, [a.tobytes() for a in given], values, launch)
        if not result.verdict.ok:
            return result.verdict.kind, result
        return ("ok" if self._judged(result).outcome is Outcome.OK else WRONG), result

    def _array(self, slot: int) -> npt.NDArray[Any]:
        operand, written = operands(self.workload)[slot], outputs(operands(self.workload))
        return np.ascontiguousarray(
            initial(operand, self.case) if operand in written else self.case.arrays[operand.name]
        )

    def _judged(self, result: Result) -> Verdict:
        slots = [operands(self.workload)[i] for i in self.program.uop.arg.globals]
        verdicts = [
            judge(np.frombuffer(after, np.uint8), dtype_name(o), self.case.truths[o.name], self._tolerance)
            for o, after in zip(slots, result.buffers, strict=True)
            if o in outputs(operands(self.workload))
        ]
        return max(verdicts, key=lambda v: v.outcome is not Outcome.OK)

    @property
    def _tolerance(self) -> float:
        return tolerance(self.workload, self.variant)


@functools.cache
def metal_kernel(workload: Workload, schedule: Schedule) -> MetalKernel:
    program = compile_program(build(workload, schedule, RENDERER), RENDERER, max_uops=100_000)
    return MetalKernel(workload, schedule.variant, program, make_case(workload, 0))
