"""Runs schedules as real Metal source on this machine, in three orders of threads, and judges what they compute.

No Mac, no time: what comes out are verdicts on numerics and on what a kernel may not do (see metalsim/README.md). A
schedule that fails is withdrawn from lookups; one that does not is no faster for it, and nothing here can be served.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autotune.metalsim import ARCHS, Launch, Result, ToolchainError, find_toolchain, metal_renderer, run_orders
from autotune.session import missing_kernel
from autotune.tinygrad_api.lower import LoweringError, Program, compile_program
from autotune.tinygrad_api.sample import random_schedules
from autotune.validate import Verdict, dtype_name, initial, judge
from autotune.verify import Checked
from db.errors import AutotuneError
from db.records import Measurement, Outcome, Run, Schedule, Stage, Target, Workload
from db.store import Store
from kernels import backends
from kernels.ops.case import Case, outputs
from kernels.ops.references import make_case
from kernels.ops.registry import KernelError, kernel_digest, nbytes_moved, operands, tuned_values
from kernels.ops.tolerance import tolerance
from kernels.serve.defaults import defaults, heuristic
from kernels.serve.sink import applies, build
from kernels.tinygrad.schedule import ScheduleError

BACKEND = backends.SIMULATED
MAX_UOPS = 100_000
AHEAD = 4  # jobs a worker that are handed out before their turn: the rest can still be stopped
OUTCOMES = {"compile_error": Outcome.COMPILE_ERROR, "limit": Outcome.ILLEGAL, "timeout": Outcome.TIMEOUT}
SIMULATED = "simulated"


class SimulateError(AutotuneError, ValueError):
    """What was asked for cannot be simulated."""


@dataclass(frozen=True)
class Job:
    """A schedule to check. target: whose row it is stored in; for a default, the simulated one."""

    workload: Workload
    schedule: Schedule
    origin: str
    target: Target


def parse_target(text: str) -> str:
    """The arch of "METAL:Apple9". Raises SimulateError for anything else."""
    backend, _, arch = text.partition(":")
    if backend.upper() != BACKEND or arch not in ARCHS:
        raise SimulateError(f"target {text!r} cannot be simulated: {', '.join(f'{BACKEND}:{a}' for a in ARCHS)} can")
    return arch


def simulated_target(arch: str) -> Target:
    """Under which verdicts of the simulator are kept that are of no device's row."""
    return Target(BACKEND, arch, f"{SIMULATED} {arch}", 0)


def jobs(
    store: Store, arch: str, workloads: Iterable[Workload], formats: Sequence[str] = (), count: int = 0
) -> list[Job]:
    """Stored schedules of every Metal device of that arch; then for each workload all hand-chosen ones that apply, the
    heuristic's, and `count` random ones. Of the given formats, or of all."""

    def wanted(w: Workload) -> bool:
        return (not formats or w.format in formats) and missing_kernel(w) is None

    stored = [winner.row.measurement for winner in store.finals()]
    found = [
        Job(m.workload, m.schedule, "stored", m.target)
        for m in stored
        if (m.target.backend, m.target.arch) == (BACKEND, arch) and wanted(m.workload)
    ]
    ren, target = metal_renderer(arch), simulated_target(arch)
    for w in filter(wanted, workloads):
        chosen = [s for s in defaults(w, BACKEND) if applies(w, s, BACKEND, ren)]
        found += [Job(w, s, "default", target) for s in chosen]
        found += [Job(w, s, "heuristic", target) for s in heuristic(w, BACKEND)]
        drawn = itertools.islice(random_schedules(w, ren, random.Random(str(w))), count)
        found += [Job(w, s, "random", target) for s in dict.fromkeys(drawn) if s not in chosen]
    return list(dict.fromkeys(found))


def simulate(store: Store, run: Run, arch: str, todo: Sequence[Job], workers: int) -> Iterator[Checked]:
    """Checks all of them on `workers` processes, in order, and records each verdict as the stage VERIFY of `run`.

    Raises SimulateError where no clang++ can compile Metal source or the cache folder cannot be used, StoreError.
    """
    try:
        find_toolchain()
        yield from _checked(store, run, arch, todo, workers)
    except ToolchainError as e:  # the simulator stands alone, and so do its errors
        raise SimulateError(str(e)) from e


def _checked(store: Store, run: Run, arch: str, todo: Sequence[Job], workers: int) -> Iterator[Checked]:
    if not todo:
        return
    store.start_run(run)
    # spawned: a fork would inherit the threads of whoever calls
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting: list[tuple[Job, Future[Verdict]]] = []
        left = iter(todo)
        try:
            while True:
                for job in itertools.islice(left, AHEAD * workers - len(waiting)):
                    waiting.append((job, pool.submit(check, arch, job.workload, job.schedule)))
                if not waiting:
                    return
                job, future = waiting.pop(0)
                verdict = future.result()
                store.record(run.id, [_row(job, verdict)])
                status = "right" if verdict.outcome is Outcome.OK else "wrong"
                yield Checked(
                    job.workload, job.schedule, job.origin, status, verdict.outcome, verdict.error, None, verdict.reason
                )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def check(arch: str, w: Workload, schedule: Schedule) -> Verdict:
    """What the simulator says of one schedule: two seeds would say no more, the reference's case has the odd rows."""
    limit = tolerance(w, schedule.variant)
    ren = metal_renderer(arch)
    try:
        program = compile_program(build(w, schedule, ren), ren, max_uops=MAX_UOPS)
    except LoweringError as e:
        return Verdict(e.outcome, None, None, limit, str(e))
    except (ScheduleError, KernelError) as e:
        return Verdict(Outcome.ILLEGAL, None, None, limit, str(e))
    case = make_case(w, 0)
    result = launch(w, program, case)
    if not result.verdict.ok:
        outcome = OUTCOMES.get(result.verdict.kind, Outcome.WRONG_RESULT)
        return Verdict(outcome, None, None, limit, str(result.verdict))
    verdict = judged(w, program, case, result, limit)
    # what raced or was never written explains a wrong number
    return replace(verdict, reason="; ".join(filter(None, (verdict.reason, result.verdict.suspicion))))


def launch(w: Workload, program: Program, case: Case, source: str | None = None, size: Launch | None = None) -> Result:
    """A program's source, or another, on the arrays of a case."""
    groups, threads = program.launch_dims(tuned_values(w))
    values = program.uop.arg.vals(tuned_values(w))
    given = [_array(w, slot, case).tobytes() for slot in program.uop.arg.globals]
    return run_orders(
        program.source if source is None else source, given, values, size or Launch(groups, threads or (1,))
    )


def _array(w: Workload, slot: int, case: Case) -> npt.NDArray[np.generic]:
    operand = operands(w)[slot]
    written = operand in outputs(operands(w))
    return np.ascontiguousarray(initial(operand, case) if written else case.arrays[operand.name])


def judged(w: Workload, program: Program, case: Case, result: Result, limit: float) -> Verdict:
    """The worst of the verdicts on what the launch wrote."""
    slots = [operands(w)[i] for i in program.uop.arg.globals]
    verdicts = [
        judge(np.frombuffer(after, np.uint8), dtype_name(o), case.truths[o.name], limit)
        for o, after in zip(slots, result.buffers, strict=True)
        if o in outputs(operands(w))
    ]
    return max(verdicts, key=lambda v: (v.outcome is not Outcome.OK, v.error or 0.0))


def _row(job: Job, verdict: Verdict) -> Measurement:
    w = job.workload
    reason = f"{SIMULATED}: {verdict.reason}" if verdict.reason else SIMULATED
    return Measurement(
        w,
        job.target,
        job.schedule,
        kernel_digest(w),
        Stage.VERIFY,
        verdict.outcome,
        (),
        nbytes_moved(w),
        verdict.error,
        verdict.tolerance,
        reason,
        "",
    )
