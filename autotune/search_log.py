"""What one workload's search stores as it goes, and what searches of it that were cut off have left.

Every fact is stored when it is known, in a transaction of its own. A candidate is marked before it runs on the device:
one that takes this process or the machine with it, again and again, is known by its mark.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime

from autotune.commit import COMMIT
from autotune.load import LOAD
from autotune.trial.trial import Subject, Trial
from db.codec import schedule_digest
from db.records import Measurement, Outcome, Run, Schedule, Stage
from db.rows import clean
from db.store import Recorded, Store, StoreError

# a candidate during which this many sweeps ended is not tried again
FATAL_ATTEMPTS = 2


class SearchLog:
    """The stored side of a search: `run` works on `subject`. A method raises StoreError if the store refuses.

    timed: what cut-off searches under the same versions have measured, by schedule. bad: digests of the schedules whose
    latest measurement failed.
    """

    def __init__(self, store: Store, run: Run, subject: Subject) -> None:
        self._store, self._run, self._subject = store, run, subject
        self._key = subject.workload, subject.target, subject.kernel_digest
        self._earlier = [r for r in store.since_final(*self._key) if _versions(r.run) == _versions(clean(run))]
        self._attempts = store.attempts(*self._key)
        self.bad = frozenset(store.known_bad(*self._key))
        probes = {r.measurement.schedule: r.measurement for r in self._earlier if r.measurement.stage is Stage.PROBE}
        trials = [self._trial(m) for m in probes.values() if schedule_digest(m.schedule) not in self.bad]
        self.timed = {t.schedule: t for t in trials if t.timed}

    def record(self, measurement: Measurement) -> None:
        self._store.record(self._run.id, [measurement])

    def attempt(self, trial: Trial) -> Trial:
        """The trial, marked as started; as a crash, unmarked, if sweeps that started it did not live to end it."""
        lost = self._attempts.get(schedule_digest(trial.schedule), 0)
        if lost >= FATAL_ATTEMPTS:
            return trial.failed(Outcome.CRASH, f"{lost} sweeps were killed, or their machine, while this ran")
        self._store.attempt(*self._key, trial.schedule)
        return trial

    def forgive(self, trial: Trial) -> None:
        """Takes the mark of `attempt` back, where it was no fault of the trial that it did not end."""
        with suppress(StoreError):  # this process ends for a better reason
            self._store.forgive(*self._key, trial.schedule)

    def spent_seconds(self, baselines: Collection[Schedule]) -> float:
        """Seconds that cut-off searches have searched: of each run, from its first candidate, or its last baseline
        before that, to the last."""
        spent = 0.0
        for run in {r.run.id for r in self._earlier}:
            rows = [r for r in self._earlier if r.run.id == run and r.measurement.stage is Stage.PROBE]
            begun = max((i for i, r in enumerate(rows) if r.measurement.schedule in baselines), default=0)
            spent += (_date(rows[-1]) - _date(rows[begun])).total_seconds() if rows else 0.0
        return spent

    def _trial(self, m: Measurement) -> Trial:
        return Trial(self._subject, m.schedule, m.outcome, m.reason, None, m.error, m.samples)


def _versions(run: Run) -> dict[str, str]:
    """What a run's figures depend on. What was measured under load is not measured again for that alone."""
    return {name: version for name, version in run.versions if name not in (LOAD, COMMIT)}


def _date(row: Recorded) -> datetime:
    return datetime.fromisoformat(row.created_at)
