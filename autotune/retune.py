"""Replays what is stored after an upgrade: of each workload the best schedules that any version of its kernel had.

They are validated and timed in turns with the baselines, and one is accepted, as at the end of a search (`accept`).
Nothing is searched, so that a workload takes seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from autotune.accept import accept, baselines
from autotune.claims import unfit
from autotune.device_lock import alone
from autotune.session import Session, missing_kernel
from autotune.stale import Stored
from autotune.trial.compiler import CompilePool
from autotune.trial.pipeline import Pipeline
from autotune.trial.runner import PrepareError, RunnerError
from autotune.trial.trial import Trial
from autotune.verify import compiled
from db.codec import schedule_digest
from db.records import Measurement, Run, Schedule, Stage, Workload
from db.store import Winner
from kernels.ops.registry import kernel_digest

TOP = 4
ROWS = 16  # that are read for each schedule: some are measured several times, and some are baselines
CURRENT = "not stale"


@dataclass(frozen=True)
class Retuned:
    """What became of one workload.

    status: "accepted" (a stored schedule), "baseline wins", "failed" (no schedule is right here), "skipped" (no kernel)
    or "unchecked" (the device failed). why: what is stale about it. before: seconds of the last accepted schedule, when
    it was accepted. seconds, baseline_seconds: now, of what is accepted and of the best baseline. same: whether the
    last schedule is accepted again.
    """

    workload: Workload
    why: str
    status: str
    before: float
    schedule: Schedule | None = None
    seconds: float | None = None
    baseline_seconds: float | None = None
    same: bool = False
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.status not in ("failed", "unchecked")


class Retune:
    """A replay on one session's device: of what is stale, or of every stored workload; of these workloads, or of all.

    top: how many schedules of each are replayed.
    """

    def __init__(
        self,
        session: Session,
        command: str,
        workloads: Collection[Workload] | None = None,
        every: bool = False,
        top: int = TOP,
    ) -> None:
        self._session, self._command, self._top = session, command, top
        store, info = session.store, session.info
        stored = Stored((*store.finals(info.target), *store.claims(info.target)), info.target, dict(info.versions))
        self._last = {w: max(found, key=lambda x: x.row.id) for w, found in stored.winners.items()}
        of = {w: stored.why(w) or CURRENT for w in stored.winners if workloads is None or w in workloads}
        self.todo = {w: why for w, why in of.items() if every or why != CURRENT}
        self._runs: dict[tuple[int, float], Run] = {}

    def rows(self) -> Iterator[Retuned]:
        """One for each of `todo`. Raises StoreError, CompilePoolError."""
        if not self.todo:
            return
        with CompilePool(self._session.info.renderer, self._session.settings.workers) as pool:
            for w, why in self.todo.items():
                yield self._row(pool, w, why)

    def _row(self, pool: CompilePool, w: Workload, why: str) -> Retuned:
        last = self._last[w]
        before = last.row.median_seconds
        if reason := missing_kernel(w):
            return Retuned(w, why, "skipped", before, reason=reason)
        with alone(self._session.choice.device):
            try:
                self._session.runner.prepare(w)
            except (PrepareError, RunnerError) as e:
                return Retuned(w, why, "unchecked", before, reason=str(e))
            return self._replayed(Pipeline(self._session.runner, pool, w), why, last)

    def _replayed(self, pipeline: Pipeline, why: str, last: Winner) -> Retuned:
        w, before, run = pipeline.subject.workload, last.row.median_seconds, self._run(last)
        judged = baselines(w, pipeline.subject.target, pipeline.renderer, self._session.settings.heuristic)
        known = dict.fromkeys(s for group in judged.values() for s in group)
        stored = self._stored(w, known)

        def record(m: Measurement) -> None:
            self._session.store.record(run.id, [m])

        def tried(trial: Trial) -> Trial:
            done = pipeline.measure(pipeline.validate(trial))
            record(done.measurement(Stage.PROBE))
            return done

        imported = [s for s, origin in stored.items() if origin == "imported"]
        # all are compiled before the first is timed
        trials = [tried(t) for t in list(compiled(pipeline, [*known, *stored], imported))]
        decision = accept(
            pipeline, [t for t in trials if t.schedule in known], [t for t in trials if t.schedule in stored], record
        )
        if decision.accepted is None:
            return Retuned(w, why, "failed", before, reason=next((t.reason for t in trials if t.reason), ""))
        schedule = decision.accepted.schedule
        return Retuned(
            w,
            why,
            "baseline wins" if schedule in known else "accepted",
            before,
            schedule,
            decision.medians[schedule],
            min((seconds for s, seconds in decision.medians.items() if s in known), default=None),
            schedule == last.row.measurement.schedule,
        )

    def _stored(self, w: Workload, known: Collection[Schedule]) -> dict[Schedule, str]:
        """The schedules to replay, and where they are from; those that this version of the kernel was found to fail
        with, and what others found that should not be run here, are left out."""
        store, target = self._session.store, self._session.info.target
        bad = store.known_bad(w, target, kernel_digest(w))
        found: dict[Schedule, str] = {}
        for row in store.replayable(w, target, ROWS * self._top):
            m = row.measurement
            fit = m.schedule not in known and schedule_digest(m.schedule) not in bad
            if fit and (row.origin != "imported" or unfit(m) is None):
                found.setdefault(m.schedule, row.origin)
        return dict(list(found.items())[: self._top])

    def _run(self, last: Winner) -> Run:
        """A run of the effort that the last schedule was found with, so that a sweep knows what it need not search."""
        known = last.row.run.beam_width, last.row.run.budget_seconds
        effort = (0, 0.0) if last.row.origin == "imported" else known
        if effort not in self._runs:
            self._runs[effort] = self._session.run(self._command, *effort)
            self._session.store.start_run(self._runs[effort])
        return self._runs[effort]
