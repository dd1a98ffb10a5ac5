"""Checks stored schedules again: compile, validate with two seeds, record. Nothing is searched or timed.

A schedule that fails is recorded as such, which withdraws it from lookups. One that was accepted for another version
of the kernel's source is served to nobody, and is for `autotune.retune`. One that was imported is served once it was
found right here; it is compiled within the limits of any candidate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from autotune.accept import SEEDS
from autotune.claims import unfit
from autotune.session import Session, missing_kernel
from autotune.trial.compiler import CompilePool
from autotune.trial.pipeline import Pipeline
from autotune.trial.runner import PrepareError, RunnerError
from autotune.trial.trial import Trial
from db.records import Outcome, Run, Schedule, Stage, Workload
from db.store import Winner
from kernels.ops.registry import backend, kernel_digest
from kernels.serve.defaults import defaults
from kernels.serve.sink import applies

STALE = "accepted for another version of its kernel: `autotune retune` replays it"


@dataclass(frozen=True)
class Checked:
    """What became of one schedule.

    status: "right"; "wrong" (and withdrawn); "stale" (accepted for another version of the kernel, so nobody is served
    it); "skipped" (there is no kernel for it); "unchecked" (the device failed). origin: "stored", "claim" (imported),
    "stale", "packaged" or "default"; a simulation adds "heuristic" and "random".
    """

    workload: Workload
    schedule: Schedule
    origin: str
    status: str
    outcome: Outcome | None = None
    error: float | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.status not in ("wrong", "unchecked")


@dataclass(frozen=True)
class _Task:
    schedule: Schedule
    origin: str
    winner: Winner | None = None

    @property
    def imported(self) -> bool:
        return self.winner is not None and (self.winner.row.origin == "imported" or self.origin == "packaged")


def verify(
    session: Session,
    command: str,
    formats: Collection[str] = (),
    m: Collection[int] = (),
    with_defaults: bool = False,
    workloads: Collection[Workload] = (),
    packaged: Sequence[Winner] = (),
) -> Iterator[Checked]:
    """Checks everything that is stored for the session's device, of the given formats and token buckets or of all, and
    of the rows of the packaged store, `packaged`, those for the kernels that there are.

    with_defaults: the hand-chosen schedules for the stored workloads too. workloads: others whose hand-chosen schedules
    to check. Raises StoreError, CompilePoolError.
    """
    tasks = _tasks(session, formats, m, with_defaults, workloads)
    for row in packaged:
        found = row.row.measurement
        w = found.workload
        if _wanted(w, formats, m) and missing_kernel(w) is None and found.kernel_digest == kernel_digest(w):
            of_workload = tasks.setdefault(w, [])
            if found.schedule not in [task.schedule for task in of_workload]:
                of_workload.append(_Task(found.schedule, "packaged", row))
    yield from _checked(session, command, tasks)


def verify_claims(session: Session, command: str, claims: Sequence[Winner]) -> Iterator[Checked]:
    """Checks imported schedules for the session's device and the kernels that there are (`claims.sorted_out`). What is
    right is served from then on. Raises StoreError, CompilePoolError."""
    tasks: dict[Workload, list[_Task]] = {}
    for claim in claims:
        m = claim.row.measurement
        of_workload = tasks.setdefault(m.workload, [])
        if m.schedule not in [task.schedule for task in of_workload]:
            of_workload.append(_Task(m.schedule, "claim", claim))
    return _checked(session, command, tasks)


def _checked(session: Session, command: str, tasks: Mapping[Workload, Sequence[_Task]]) -> Iterator[Checked]:
    if not tasks:
        return
    with CompilePool(session.info.renderer, session.settings.workers) as pool:
        verifier = _Verifier(session, pool, command)
        for workload, of_workload in tasks.items():
            yield from verifier.check(workload, of_workload)


def _tasks(
    session: Session,
    formats: Collection[str],
    m: Collection[int],
    with_defaults: bool,
    workloads: Collection[Workload],
) -> dict[Workload, list[_Task]]:
    """What to check, by workload. Of accepted rows for other kernel sources only the newest, and only where there is
    none for the current source; of imported ones all that are for the current source."""

    def wanted(w: Workload) -> bool:
        return _wanted(w, formats, m)

    def chosen(w: Workload) -> list[_Task]:
        ren = session.info.renderer
        return [_Task(s, "default") for s in defaults(w, backend(ren)) if applies(w, s, backend(ren), ren)]

    claims = session.store.claims(session.info.target)
    claimed = {c.row.id for c in claims}
    winners: dict[Workload, list[Winner]] = {}
    for winner in (*session.store.finals(session.info.target), *claims):
        if wanted(w := winner.row.measurement.workload):
            winners.setdefault(w, []).append(winner)
    tasks: dict[Workload, list[_Task]] = {w: chosen(w) for w in workloads if wanted(w) and missing_kernel(w) is None}
    for w, found in winners.items():
        digest = None if missing_kernel(w) else kernel_digest(w)

        def task(x: Winner, digest: str | None = digest) -> _Task:
            current = x.row.measurement.kernel_digest == digest
            origin = "stale" if not current else "claim" if x.row.id in claimed else "stored"
            return _Task(x.row.measurement.schedule, origin, x)

        order = {"stored": 2, "claim": 1, "stale": 0}
        of_store = sorted(map(task, found), key=lambda t: (order[t.origin], not t.imported, _id(t)), reverse=True)
        more = tasks.get(w) or (chosen(w) if with_defaults and digest is not None else [])
        asked = [of_store[0], *(t for t in of_store[1:] if t.origin == "claim"), *more]
        tasks[w] = list({t.schedule: t for t in reversed(asked)}.values())[::-1]
    return tasks


def _wanted(w: Workload, formats: Collection[str], m: Collection[int]) -> bool:
    return (not formats or w.format in formats) and (not m or w.m in m)


def _id(task: _Task) -> int:
    return 0 if task.winner is None else task.winner.row.id


class _Verifier:
    """The state of one verification: the run that its checks are recorded under."""

    def __init__(self, session: Session, pool: CompilePool, command: str) -> None:
        self._session, self._pool, self._command = session, pool, command

    @cached_property
    def _run(self) -> Run:
        run = self._session.run(self._command, 0, 0.0)
        self._session.store.start_run(run)
        return run

    def check(self, w: Workload, tasks: Sequence[_Task]) -> Iterator[Checked]:
        if reason := missing_kernel(w):
            yield from (Checked(w, t.schedule, t.origin, "skipped", reason=reason) for t in tasks)
            return
        unchecked = {t: STALE for t in tasks if t.origin == "stale"}
        unchecked |= {t: why for t in tasks if t.winner and t.imported and (why := unfit(t.winner.row.measurement))}
        for task, why in unchecked.items():
            yield Checked(w, task.schedule, task.origin, "stale" if why is STALE else "skipped", reason=why)
        tasks = [t for t in tasks if t not in unchecked]
        if not tasks:
            return
        try:
            self._session.runner.prepare(w)
        except (PrepareError, RunnerError) as e:
            yield from (Checked(w, t.schedule, t.origin, "unchecked", reason=str(e)) for t in tasks)
            return
        pipeline = Pipeline(self._session.runner, self._pool, w)
        imported = [t.schedule for t in tasks if t.imported]
        trials = {t.schedule: t for t in compiled(pipeline, [t.schedule for t in tasks], imported)}
        for task in tasks:
            trial = pipeline.validate(trials[task.schedule], SEEDS)
            self._session.store.record(self._run.id, [trial.measurement(Stage.VERIFY)])
            status = "right" if trial.ok else "wrong"
            yield Checked(w, task.schedule, task.origin, status, trial.outcome, trial.error, trial.reason)


def compiled(pipeline: Pipeline, schedules: Sequence[Schedule], imported: Collection[Schedule]) -> Iterator[Trial]:
    """What others found has no more time to compile than any candidate, or it could hold up who is served; but our
    defaults, and what tinygrad's heuristic makes, are bounded by nobody."""
    ours = defaults(pipeline.subject.workload, backend(pipeline.renderer))
    limited = [s for s in schedules if s in imported and s.opts is not None and s not in ours]
    return pipeline.compile(schedules, patient=[s for s in schedules if s not in limited])
