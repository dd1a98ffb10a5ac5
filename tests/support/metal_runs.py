"""Kernels of ours as Metal source, run by the simulator and judged against their references."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest

from autotune.metalsim.executor import Result, SimulatedLaunch
from autotune.metalsim.renderer import metal_renderer
from autotune.metalsim.toolchain import ToolchainError, find_toolchain
from autotune.tinygrad_api.lower import Program, compile_program
from autotune.trial import simulator
from db.records import Outcome, Schedule, Workload
from kernels.ops.case import Case
from kernels.ops.references import make_case
from kernels.ops.registry import tuned_values
from kernels.ops.tolerance import tolerance
from kernels.serve.sink import build

WRONG = "wrong_result"


def _missing() -> str:
    """Why nothing can be simulated here, "" if it can."""
    try:
        find_toolchain()
    except ToolchainError:
        return "no clang++ of version 15 or newer to compile Metal source with"
    return ""


NO_TOOLCHAIN = _missing()
needs_toolchain = pytest.mark.skipif(bool(NO_TOOLCHAIN), reason=NO_TOOLCHAIN)
RENDERER = metal_renderer("Apple9")


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
    def launch(self) -> SimulatedLaunch:
        groups, threads = self.program.launch_dims(tuned_values(self.workload))
        return SimulatedLaunch(groups, threads or (1,))

    def run(self, source: str, launch: SimulatedLaunch) -> tuple[str, Result]:
        """The kind of the first verdict of three orders that is not ok, or WRONG, or "ok"; and what was run."""
        result = simulator.launch(self.workload, self.program, self.case, source, launch)
        if not result.verdict.ok:
            return result.verdict.kind, result
        limit = tolerance(self.workload, self.variant)
        verdict = simulator.judged(self.workload, self.program, self.case, result, limit)
        return ("ok" if verdict.outcome is Outcome.OK else WRONG), result


@functools.cache
def metal_kernel(workload: Workload, schedule: Schedule) -> MetalKernel:
    program = compile_program(build(workload, schedule, RENDERER), RENDERER, max_uops=100_000)
    return MetalKernel(workload, schedule.variant, program, make_case(workload, 0))
