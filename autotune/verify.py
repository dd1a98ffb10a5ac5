"""Checks stored schedules again: compile, validate with two seeds, record. Nothing is searched.

A schedule that fails is recorded as such, which withdraws it from lookups. One that was accepted for another version
of the kernel's source is validated under the current one and, if right, timed beside the baselines and recorded as
accepted: a replay, which costs seconds where a new search costs minutes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from autotune import measure
from autotune.compiler import CompilePool, Job
from autotune.decide import COMPARE_SECONDS, MIN_ROUNDS, PROBE_LAUNCHES, ROUNDS
from autotune.runner import PrepareError, RunnerError
from autotune.session import Session, missing_kernel
from autotune.tinygrad_api.lower import Program
from autotune.tune import BASELINE_SECONDS, BASELINE_UOPS
from autotune.validate import Verdict
from db.records import Measurement, Outcome, Run, Schedule, Stage, Workload
from db.store import Winner
from kernels.ops.registry import backend, kernel_digest, nbytes_moved
from kernels.ops.tolerance import tolerance
from kernels.serve.defaults import defaults, heuristic
from kernels.serve.sink import applies, default

SEEDS = 2


@dataclass(frozen=True)
class Checked:
    """What became of one schedule.

    status: "right"; "replayed" (right, and accepted for the current kernel source, `seconds` is its new median, or the
    baseline's that beat it); "wrong" (and withdrawn); "skipped" (there is no kernel for it); "unchecked" (the device
    failed). origin: "stored", "stale" (accepted for another kernel source) or "default".
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
    tasks = _tasks(session, formats, m, with_defaults, workloads)
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
    none for the current source."""

    def wanted(w: Workload) -> bool:
        return (not formats or w.format in formats) and (not m or w.m in m)

    def chosen(w: Workload) -> list[_Task]:
        ren = session.info.renderer
        return [_Task(s, "default") for s in defaults(w, backend(ren)) if applies(w, s, backend(ren), ren)]

    winners: dict[Workload, list[Winner]] = {}
    for winner in session.store.finals(session.info.target):
        if wanted(w := winner.row.measurement.workload):
            winners.setdefault(w, []).append(winner)
    tasks: dict[Workload, list[_Task]] = {w: chosen(w) for w in workloads if wanted(w) and missing_kernel(w) is None}
    for w, found in winners.items():
        digest = None if missing_kernel(w) else kernel_digest(w)
        newest = max(found, key=lambda x: (x.row.measurement.kernel_digest == digest, x.row.created_at, x.row.id))
        stored = newest.row.measurement
        more = tasks.get(w) or (chosen(w) if with_defaults and digest is not None else [])
        tasks[w] = [_Task(stored.schedule, "stored" if stored.kernel_digest == digest else "stale", newest)]
        tasks[w] += [task for task in more if task.schedule != stored.schedule]
    return tasks


class _Verifier:
    """The state of one verification: its runs, one for each effort that a replayed schedule had been found with."""

    def __init__(self, session: Session, pool: CompilePool, command: str) -> None:
        self._session, self._pool, self._command = session, pool, command
        self._runs: dict[tuple[int, float], Run] = {}

    def check(self, w: Workload, tasks: Sequence[_Task]) -> Iterator[Checked]:
        if reason := missing_kernel(w):
            yield from (Checked(w, t.schedule, t.origin, "skipped", reason=reason) for t in tasks)
            return
        try:
            self._session.runner.prepare(w)
        except (PrepareError, RunnerError) as e:
            yield from (Checked(w, t.schedule, t.origin, "unchecked", reason=str(e)) for t in tasks)
            return
        programs, faults = self._compile(w, [t.schedule for t in tasks])
        for task in tasks:
            verdict = faults.get(task.schedule) or self._validate(w, task.schedule, programs[task.schedule])
            self._record(self._run(0, 0.0), [self._row(w, task.schedule, Stage.VERIFY, verdict)])
            status, seconds, reason = "right", None, verdict.reason
            if verdict.outcome is not Outcome.OK:
                status = "wrong"
            elif task.origin == "stale" and task.winner is not None:
                seconds, reason = self._replay(w, task.winner, verdict, programs[task.schedule])
                status = "unchecked" if seconds is None else "replayed"
            yield Checked(w, task.schedule, task.origin, status, verdict.outcome, verdict.error, seconds, reason)

    def _replay(self, w: Workload, winner: Winner, verdict: Verdict, program: Program) -> tuple[float | None, str]:
        """Times a right schedule in turn with the baselines and records the best as accepted: its seconds, a note."""
        ours, ren = winner.row.measurement.schedule, self._session.info.renderer
        chosen = default(w, ren)
        judged = dict.fromkeys((*heuristic(w, backend(ren)), *([chosen] if chosen else [])))
        compiled, _ = self._compile(w, [s for s in judged if s != ours])
        verdicts = {s: self._validate(w, s, p) for s, p in compiled.items()} | {ours: verdict}
        field = {s: p for s, p in (compiled | {ours: program}).items() if verdicts[s].outcome is Outcome.OK}
        samples = self._samples(field) or self._samples({ours: program})
        if not samples:
            return None, "right, but it cannot be timed: not accepted"
        best = min((s for s in samples if s != ours), key=lambda s: measure.median(samples[s]), default=ours)
        accepted = best if best != ours and measure.beats(samples[best], samples[ours]) else ours
        rows = [self._row(w, s, Stage.BASELINE, verdicts[s], samples[s]) for s in samples if s in judged]
        rows.append(self._row(w, accepted, Stage.FINAL, verdicts[accepted], samples[accepted]))
        effort = winner.row.run
        self._record(self._run(effort.beam_width, effort.budget_seconds), rows)
        note = "" if accepted == ours else f"{accepted.variant}, a baseline, is faster now and was accepted instead"
        return measure.median(samples[accepted]), note

    def _samples(self, field: dict[Schedule, Program]) -> dict[Schedule, tuple[float, ...]]:
        """Samples of each taken in turn; none if one of them faults."""
        runner = self._session.runner
        probes = [runner.measure(p, PROBE_LAUNCHES) for p in field.values()]
        if any(p.outcome is not Outcome.OK for p in probes):
            return {}
        once = sum(min(p.samples) for p in probes)
        timings = runner.compare(list(field.values()), int(min(ROUNDS, max(MIN_ROUNDS, COMPARE_SECONDS / once))))
        if any(t.outcome is not Outcome.OK for t in timings):
            return {}
        return {s: t.samples for s, t in zip(field, timings, strict=True)}

    def _compile(
        self, w: Workload, schedules: Sequence[Schedule]
    ) -> tuple[dict[Schedule, Program], dict[Schedule, Verdict]]:
        """Programs of those that compile, and verdicts on the others. As patient as with a baseline."""
        programs, faults = {}, {}
        for c in self._pool.compile([Job(s, w, s, BASELINE_UOPS, BASELINE_SECONDS) for s in schedules]):
            schedule = c.key
            assert isinstance(schedule, Schedule)
            if c.program is not None:
                programs[schedule] = c.program
            else:
                faults[schedule] = Verdict(c.outcome, None, None, tolerance(w, schedule.variant), c.reason)
        return programs, faults

    def _validate(self, w: Workload, schedule: Schedule, program: Program) -> Verdict:
        return self._session.runner.validate(program, tolerance(w, schedule.variant), seeds=SEEDS)

    def _run(self, beam_width: int, budget_seconds: float) -> Run:
        effort = beam_width, budget_seconds
        if effort not in self._runs:
            self._runs[effort] = self._session.run(self._command, *effort)
            self._session.store.start_run(self._runs[effort])
        return self._runs[effort]

    def _record(self, run: Run, rows: Sequence[Measurement]) -> None:
        self._session.store.record(run.id, rows)

    def _row(
        self, w: Workload, schedule: Schedule, stage: Stage, verdict: Verdict, samples: tuple[float, ...] = ()
    ) -> Measurement:
        return Measurement(
            w,
            self._session.info.target,
            schedule,
            kernel_digest(w),
            stage,
            verdict.outcome,
            samples,
            nbytes_moved(w),
            verdict.error,
            verdict.tolerance,
            verdict.reason,
            self._session.info.clock if samples else "",
        )
