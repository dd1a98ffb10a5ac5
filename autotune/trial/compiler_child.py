"""The inside of a compile worker: builds kernels from (workload, schedule) and lowers them. Never opens a device."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import kernels
from autotune.tinygrad_api.lower import LoweringError, Program, compile_program, one_line, worker_context
from db.records import Outcome, Schedule, Workload
from kernels.tinygrad.garbage import rare_collections
from kernels.tinygrad.renderers import Renderer


@dataclass(frozen=True)
class Setup:
    """What a worker needs once: the renderer to lower for, the parent's codegen settings, the usual largest kernel."""

    renderer: Renderer
    settings: dict[str, object]
    max_uops: int


@dataclass(frozen=True)
class Compiled:
    """What became of a job. `program` is there when the outcome is OK, else `reason` is. `seconds` of wall time. key:
    the job's, once its answer is with the pool."""

    outcome: Outcome
    reason: str
    program: Program | None
    seconds: float
    key: Hashable = None


def compile_one(workload: Workload, schedule: Schedule, renderer: Renderer, max_uops: int) -> Compiled:
    """ILLEGAL if the kernel cannot be built so (KernelError, ScheduleError, FormatError), else what lowering says."""
    start = time.perf_counter()

    def answer(outcome: Outcome, reason: str, program: Program | None = None) -> Compiled:
        return Compiled(outcome, reason, program, time.perf_counter() - start)

    try:
        sink = kernels.build(workload, schedule, renderer)
        return answer(Outcome.OK, "", compile_program(sink, renderer, max_uops=max_uops))
    except ValueError as e:
        return answer(Outcome.ILLEGAL, one_line(e))
    except LoweringError as e:
        return answer(e.outcome, one_line(e))


def main(connection: Connection[Any, Any]) -> None:
    """Serve jobs until the pipe closes. Says ready first, so that imports count against no job's time."""
    setup: Setup = connection.recv()
    with worker_context(setup.settings), rare_collections():
        connection.send("ready")
        while True:
            workload, schedule, max_uops = connection.recv()
            connection.send(compile_one(workload, schedule, setup.renderer, max_uops))
