"""Checks stored schedules again: compile, validate with two seeds, record. Nothing is searched.

A schedule that fails is recorded as such, which withdraws it from lookups. One that was accepted for another version
of the kernel's source is validated under the current one and, if right, timed beside the baselines and recorded as
accepted: a replay, which costs seconds where a new search costs minutes. One that was imported is served once it was
found right here; it is compiled within the limits of any candidate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from autotune.accept import SEEDS
from autotune.claims import unfit
from autotune.device_lock import alone
from autotune.session import Session, missing_kernel
from autotune.trial.compiler import CompilePool
from autotune.trial.pipeline import Pipeline
from autotune.trial.runner import PrepareError, RunnerError
from autotune.trial.statistics import beats, median
from autotune.trial.trial import Trial
from db.records import Measurement, Outcome, Run, Schedule, Stage, Workload
from db.store import Winner
from kernels.ops.registry import backend, kernel_digest
from kernels.serve.defaults import defaults, heuristic
from kernels.serve.sink import applies, default


@dataclass(frozen=True)
class Checked:
    """What became of one schedule.

    status: "right"; "replayed" (right, and accepted for the current kernel source, `seconds` is its new median, or the
    baseline's that beat it); "wrong" (and withdrawn); "skipped" (there is no kernel for it); "unchecked" (the device
    failed). origin: "stored", "claim" (imported), "stale" (accepted for another kernel source) or "default".
    """

    workload: Workload
    schedule: Schedule
    origin: str
    status: str
    outcome: Outcome | None = None
    error: float | None = None
    seconds: float | None = None
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
        return self.winner is not None and self.winner.row.origin == "imported"


def verify(
    session: Session,
    command: str,
    formats: Collection[str] = (),
    m: Collection[int] = (),
    with_defaults: bool = False,
    workloads: Collection[Workload] = (),
) -> Iterator[Checked]:
    """Checks everything that is stored for the session's device, of the given formats and token buckets or of all.

    with_defaults: the hand-chosen schedules for the stored workloads too. workloads: others whose hand-chosen schedules
    to check. Raises StoreError, CompilePoolError.
    """
    yield from _checked(session, command, _tasks(session, formats, m, with_defaults, workloads))


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
        return (not formats or w.format in formats) and (not m or w.m in m)

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


def _id(task: _Task) -> int:
    return 0 if task.winner is None else task.winner.row.id


class _Verifier:
    """The state of one verification: its runs, one for each effort that a replayed schedule had been found with."""

    def __init__(self, session: Session, pool: CompilePool, command: str) -> None:
        self._session, self._pool, self._command = session, pool, command
        self._runs: dict[tuple[int, float], Run] = {}

    def check(self, w: Workload, tasks: Sequence[_Task]) -> Iterator[Checked]:
        if reason := missing_kernel(w):
            yield from (Checked(w, t.schedule, t.origin, "skipped", reason=reason) for t in tasks)
            return
        unfits = {t: why for t in tasks if t.winner and t.imported and (why := unfit(t.winner.row.measurement))}
        yield from (Checked(w, t.schedule, t.origin, "skipped", reason=why) for t, why in unfits.items())
        tasks = [t for t in tasks if t not in unfits]
        if not tasks:
            return
        try:
            self._session.runner.prepare(w)
        except (PrepareError, RunnerError) as e:
            yield from (Checked(w, t.schedule, t.origin, "unchecked", reason=str(e)) for t in tasks)
            return
        pipeline = Pipeline(self._session.runner, self._pool, w)
        compiled = self._compiled(pipeline, tasks)
        for task in tasks:
            trial = pipeline.validate(compiled[task.schedule], SEEDS)
            self._record(self._run(0, 0.0), [trial.measurement(Stage.VERIFY)])
            status, seconds, reason = "right" if trial.ok else "wrong", None, trial.reason
            if trial.ok and task.origin == "stale" and task.winner is not None:
                with alone(self._session.choice.device):
                    seconds, reason = self._replay(pipeline, task.winner, trial)
                status = "unchecked" if seconds is None else "replayed"
            yield Checked(w, task.schedule, task.origin, status, trial.outcome, trial.error, seconds, reason)

    def _compiled(self, pipeline: Pipeline, tasks: Sequence[_Task]) -> dict[Schedule, Trial]:
        """What others found has no more time to compile than any candidate, or it could hold up who is served; but our
        defaults, and what tinygrad's heuristic makes, are bounded by nobody."""
        ours = defaults(pipeline.subject.workload, backend(self._session.info.renderer))
        limited = [t.schedule for t in tasks if t.imported and t.schedule.opts is not None and t.schedule not in ours]
        patient = [t.schedule for t in tasks if t.schedule not in limited]
        trials = (*pipeline.compile(patient, patient=True), *pipeline.compile(limited))
        return {t.schedule: t for t in trials}

    def _replay(self, pipeline: Pipeline, winner: Winner, ours: Trial) -> tuple[float | None, str]:
        """Times a right schedule in turn with the baselines and records the best as accepted: its seconds, a note."""
        w, ren = ours.subject.workload, self._session.info.renderer
        chosen = default(w, ren)
        judged = dict.fromkeys((*heuristic(w, backend(ren)), *([chosen] if chosen else [])))
        others = pipeline.compile([s for s in judged if s != ours.schedule], patient=True)
        field = [pipeline.measure(t) for t in (*(pipeline.validate(t, SEEDS) for t in list(others)), ours)]
        compared = pipeline.compare(field).compared
        mine = next((t for t in compared if t.schedule == ours.schedule), None)
        if mine is None:  # a baseline may be at fault
            compared = pipeline.compare(field[-1:]).compared
            if not compared:
                return None, "right, but it cannot be timed: not accepted"
            (mine,) = compared
        best = min((t for t in compared if t is not mine), key=lambda t: median(t.samples), default=mine)
        accepted = best if best is not mine and beats(best.samples, mine.samples) else mine
        rows = [t.measurement(Stage.BASELINE) for t in compared if t.schedule in judged]
        rows.append(accepted.measurement(Stage.FINAL))
        effort = winner.row.run
        known = (effort.beam_width, effort.budget_seconds) if winner.row.origin != "imported" else (0, 0.0)
        self._record(self._run(*known), rows)
        variant = accepted.schedule.variant
        note = "" if accepted is mine else f"{variant}, a baseline, is faster now and was accepted instead"
        return median(accepted.samples), note

    def _run(self, beam_width: int, budget_seconds: float) -> Run:
        effort = beam_width, budget_seconds
        if effort not in self._runs:
            self._runs[effort] = self._session.run(self._command, *effort)
            self._session.store.start_run(self._runs[effort])
        return self._runs[effort]

    def _record(self, run: Run, rows: Sequence[Measurement]) -> None:
        self._session.store.record(run.id, rows)
