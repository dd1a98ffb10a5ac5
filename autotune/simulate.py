"""Runs schedules as real Metal source on this machine's CPU, in three orders of threads, and judges their results.

It needs no Mac and measures no time: it judges numerics and forbidden accesses (see metalsim/README.md). A stored
schedule that fails is withdrawn from lookups. A simulated result is never served.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace

from autotune.metalsim.renderer import ARCHS, metal_renderer
from autotune.metalsim.toolchain import ToolchainError, find_toolchain
from autotune.search.sample import random_schedules
from autotune.session import missing_kernel
from autotune.trial import simulator
from autotune.trial.compiler_child import compile_one
from autotune.trial.pipeline import BASELINE_UOPS
from autotune.trial.trial import Subject, Trial
from autotune.verify import Checked
from db.errors import AutotuneError
from db.records import Run, Schedule, Stage, Target, Workload
from db.store import Store, Winner
from kernels import backends
from kernels.serve.defaults import defaults, heuristic
from kernels.serve.packaged import packaged
from kernels.serve.sink import applies

BACKEND = backends.SIMULATED
AHEAD = 4  # jobs for each worker that are submitted in advance; later jobs can still be cancelled
SIMULATED = "simulated"


class SimulateError(AutotuneError, ValueError):
    """The requested target or schedules cannot be simulated."""


@dataclass(frozen=True)
class Job:
    """A schedule to check. target: the target that the verdict is stored for; for a default, the simulated one."""

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
    """The target under which verdicts on schedules are stored that were not measured on a real device."""
    return Target(BACKEND, arch, f"{SIMULATED} {arch}", 0)


def jobs(
    winners: Iterable[Winner], arch: str, workloads: Iterable[Workload], formats: Sequence[str] = (), count: int = 0
) -> list[Job]:
    """The winners' schedules of every Metal device of the arch, then for each workload what the packaged store serves,
    its applicable default schedules, the heuristic's, and `count` random ones. formats: restricts the jobs to these;
    empty for all."""

    def wanted(w: Workload) -> bool:
        return (not formats or w.format in formats) and missing_kernel(w) is None

    stored = [winner.row.measurement for winner in winners]
    found = [
        Job(m.workload, m.schedule, "stored", m.target)
        for m in stored
        if (m.target.backend, m.target.arch) == (BACKEND, arch) and wanted(m.workload)
    ]
    ren, target = metal_renderer(arch), simulated_target(arch)
    for w in filter(wanted, workloads):
        chosen = [s for s in defaults(w, BACKEND) if applies(w, s, BACKEND, ren)]
        found += [Job(w, s, "packaged", target) for s in [packaged(w, target, ren)] if s and s not in chosen]
        found += [Job(w, s, "default", target) for s in chosen]
        found += [Job(w, s, "heuristic", target) for s in heuristic(w, BACKEND)]
        drawn = itertools.islice(random_schedules(w, ren, random.Random(str(w))), count)
        found += [Job(w, s, "random", target) for s in dict.fromkeys(drawn) if s not in chosen]
    return list(dict.fromkeys(found))


def simulate(store: Store, run: Run, arch: str, todo: Sequence[Job], workers: int) -> Iterator[Checked]:
    """Checks all jobs in `workers` processes. Yields the results in order, and records each in stage VERIFY of `run`.

    Raises SimulateError if no clang++ can compile Metal source or the cache folder cannot be used, and StoreError.
    """
    try:
        find_toolchain()
        yield from _checked(store, run, arch, todo, workers)
    except ToolchainError as e:  # the simulator imports nothing of this project, so its errors are not AutotuneErrors
        raise SimulateError(str(e)) from e


def _checked(store: Store, run: Run, arch: str, todo: Sequence[Job], workers: int) -> Iterator[Checked]:
    if not todo:
        return
    store.start_run(run)
    # spawned, because a fork would inherit the caller's threads
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting: list[tuple[Job, Future[Trial]]] = []
        left = iter(todo)
        try:
            while True:
                for job in itertools.islice(left, AHEAD * workers - len(waiting)):
                    waiting.append((job, pool.submit(check, arch, job.workload, job.schedule, job.target)))
                if not waiting:
                    return
                job, future = waiting.pop(0)
                trial = future.result()
                told = f"{SIMULATED}: {trial.reason}" if trial.reason else SIMULATED
                store.record(run.id, [replace(trial, reason=told).measurement(Stage.VERIFY)])
                status = "right" if trial.ok else "wrong"
                yield Checked(job.workload, job.schedule, job.origin, status, trial.outcome, trial.error, trial.reason)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def check(arch: str, w: Workload, schedule: Schedule, target: Target | None = None) -> Trial:
    """The trial of one schedule, without its program. target: by default the simulated one."""
    ren = metal_renderer(arch)
    answer = compile_one(w, schedule, ren, BASELINE_UOPS)
    trial = Trial(Subject(w, target or simulated_target(arch)), schedule)
    trial = trial.compiled(answer.outcome, answer.reason, None)
    return trial if answer.program is None else trial.validated(simulator.validate(w, answer.program, trial.tolerance))
