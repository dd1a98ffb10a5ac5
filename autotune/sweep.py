"""Sweeps a model: tunes each of its workloads that has no stored result yet, and yields the results as they come.

Prints nothing and parses nothing. A sweep that is cut off has stored what it measured; the next one goes on from there.
Sweeps that run at once share the work of a store: each leases the workload that it tunes, and on one device they take
turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

from autotune.device_lock import alone
from autotune.gains import Gains
from autotune.load import LOAD
from autotune.owner import ended, owner
from autotune.render import schedule_name
from autotune.session import Session, missing_kernel
from autotune.trial.compiler import CompilePool
from autotune.trial.runner import RunnerError
from autotune.tune import Progress, Result, Tuner
from autotune.workloads import ModelPlan, ModelWorkload
from db.codec import schedule_digest
from db.leases import LEASE_SECONDS, Leases
from db.records import Measurement, Run, Schedule, Workload
from db.store import Winner
from kernels.ops.registry import kernel_digest, nbytes_moved
from kernels.serve.packaged import shipped

POLL_SECONDS = 1.0
RENEW_SECONDS = LEASE_SECONDS / 10
OnProgress = Callable[[ModelWorkload, Progress], None]


@dataclass(frozen=True)
class Row:
    """One workload's result; its status may also be "skipped" (no kernel, `reason` says why).

    nbytes: what one launch must move at least. copy_bandwidth: bytes a second that a copy reaches on this device, None
    where nothing had to be measured.
    """

    model: ModelWorkload
    result: Result
    nbytes: int = 0
    copy_bandwidth: float | None = None

    @property
    def bandwidth(self) -> float | None:
        """Bytes a second of the accepted schedule."""
        return self.nbytes / self.result.seconds if self.result.seconds else None

    @property
    def copy_share(self) -> float | None:
        return self.bandwidth / self.copy_bandwidth if self.bandwidth and self.copy_bandwidth else None


class Sweep:
    """A model's sweep on one session. `command` is what the store remembers of it.

    again: what is stored is tuned anew, but for `done`: the results of this command's earlier sweeps.
    """

    def __init__(
        self,
        session: Session,
        plan: ModelPlan,
        command: str,
        *,
        again: bool = False,
        done: Mapping[Workload, Result] = MappingProxyType({}),
    ) -> None:
        self._session, self._plan, self._command = session, plan, command
        self._again, self._done = again, done

    @cached_property
    def settled(self) -> tuple[Row, ...]:
        """What needs no work: workloads without a kernel, those with a stored result of at least this effort, and those
        that the packaged store serves on this very device."""
        lacking = {mw: reason for mw in self._plan.workloads if (reason := missing_kernel(mw.workload))}
        skipped = {mw: Row(mw, Result(mw.workload, "skipped", reason=reason)) for mw, reason in lacking.items()}
        rows = skipped | self._known([mw for mw in self._plan.workloads if mw not in skipped])
        if not self._again:
            rows |= self._shipped([mw for mw in self._plan.workloads if mw not in rows])
        return tuple(rows[mw] for mw in self._plan.workloads if mw in rows)

    @cached_property
    def todo(self) -> tuple[ModelWorkload, ...]:
        """What must be tuned, in the plan's order."""
        settled = {row.model for row in self.settled}
        return tuple(mw for mw in self._plan.workloads if mw not in settled)

    def rows(self, progress: OnProgress = lambda w, p: None) -> Generator[Row, None, None]:
        """First what is settled, then each of `todo` when it is done. A workload that fails does not stop the others.

        The device is timed alone, and no compiler is left running when the iterator is exhausted or closed.
        Raises StoreError, CompilePoolError.
        """
        yield from self.settled
        if self.todo:
            yield from self._tuned(progress)

    def _tuned(self, progress: OnProgress) -> Generator[Row, None, None]:
        s, left = self._session, list(self.todo)
        with CompilePool(s.info.renderer, s.settings.workers) as pool:
            work = _Work(self, pool, progress)
            while left:
                others = []
                for mw in left:
                    if row := work.row(mw):
                        yield row
                    else:
                        others.append(mw)
                if len(others) == len(left):
                    progress(left[0], Progress(waiting="another sweep of the same store"))
                    time.sleep(POLL_SECONDS)
                left = others

    def _known(self, models: Sequence[ModelWorkload]) -> dict[ModelWorkload, Row]:
        """The rows of those that have a stored result of at least this effort, or one of this command."""
        done = {mw: Row(mw, replace(self._done[mw.workload], tried=0)) for mw in models if mw.workload in self._done}
        failed = {mw: row for mw, row in done.items() if row.result.status == "failed"}
        found = {mw: self._final(mw.workload) for mw in models if mw in done or not self._again}
        known = {mw: final for mw, final in found.items() if final}
        # asked last: what another sweep stores in between is there, and what one withdraws is not
        winners = self._session.store.finals(self._session.info.target) if known else ()
        served = {(w.row.measurement.workload, w.row.measurement.kernel_digest): w for w in winners}
        return failed | {
            mw: _row_of(mw, served.get((mw.workload, final.kernel_digest)), final) for mw, final in known.items()
        }

    def _shipped(self, models: Sequence[ModelWorkload]) -> dict[ModelWorkload, Row]:
        """The rows of those that the packaged store serves: the user's store serves nothing for them, and this machine
        did not find the packaged schedule wrong."""
        target = self._session.info.target
        found = {mw: shipped(mw.workload, target) for mw in models}
        right = {mw: s for mw, s in found.items() if s and self._is_served(mw.workload, s.schedule)}
        results = {mw: Result(mw.workload, "shipped", s.schedule, s.seconds) for mw, s in right.items()}
        return {mw: Row(mw, result, nbytes_moved(mw.workload)) for mw, result in results.items()}

    def _is_served(self, w: Workload, packaged: Schedule) -> bool:
        store, key = self._session.store, (w, self._session.info.target, kernel_digest(w))
        return not store.served(*key) and schedule_digest(packaged) not in store.known_bad(*key)

    def _final(self, w: Workload) -> Measurement | None:
        s = self._session.settings
        info, digest = self._session.info, kernel_digest(w)
        found = self._session.store.has_final(w, info.target, digest, s.beam_width, s.budget_seconds)
        return found if found is not None and found.clock == info.clock else None  # not timed as now: not comparable

    @cached_property
    def _copy_bandwidth(self) -> float | None:
        try:
            return self._session.runner.copy_bandwidth()
        except RunnerError:  # a figure to compare with is no reason to give up
            return None


class _Work:
    """Tunes one workload after another for a sweep: each under a lease, with the device to itself."""

    def __init__(self, sweep: Sweep, pool: CompilePool, progress: OnProgress) -> None:
        self._sweep, self._pool, self._progress = sweep, pool, progress
        self._session = sweep._session
        self._leases = Leases(self._session.store, owner(), ended)
        self._run: Run | None = None
        self._renewed = 0.0

    def row(self, mw: ModelWorkload) -> Row | None:
        """None while another sweep works on it."""
        key = mw.workload, self._session.info.target, kernel_digest(mw.workload)
        with alone(self._session.choice.device, lambda: self._progress(mw, Progress(waiting="the device"))):
            if self._leases.take(*key):
                return None
            self._renewed = time.monotonic()
            try:
                # another sweep may have ended it since this one began
                return self._sweep._known([mw]).get(mw) or self._tuned(mw)
            finally:
                self._leases.release(*key)

    def _tuned(self, mw: ModelWorkload) -> Row:
        try:
            result = self._tuner(mw).tune(mw.workload)
        except RunnerError as e:  # no room for the inputs, say; the next workload gets a new child
            result = Result(mw.workload, "failed", reason=str(e))
        return Row(mw, result, nbytes_moved(mw.workload), self._sweep._copy_bandwidth)

    def _tuner(self, mw: ModelWorkload) -> Tuner:
        """Of the run that goes on, or of another one once what else the machine does has changed."""
        s, sweep = self._session, self._sweep
        if self._run is None or dict(self._run.versions).get(LOAD, "") != s.load.note():
            self._run = s.run(sweep._command, s.settings.beam_width, s.settings.budget_seconds)
            s.store.start_run(self._run)
        return Tuner(
            s.store,
            s.runner,
            self._pool,
            self._run,
            lambda p: self._told(mw, p),
            heuristic=s.settings.heuristic,
            started=True,
        )

    def _told(self, mw: ModelWorkload, p: Progress) -> None:
        if time.monotonic() - self._renewed > RENEW_SECONDS:
            self._renewed = time.monotonic()
            self._leases.take(mw.workload, self._session.info.target, kernel_digest(mw.workload))
        self._progress(mw, p)


def _row_of(mw: ModelWorkload, winner: Winner | None, final: Measurement) -> Row:
    """The row of a workload with a stored result, which is served or was rejected since."""
    if winner is None:
        return Row(mw, Result(mw.workload, "known", reason=f"{schedule_name(final.schedule)} was rejected as deployed"))
    m, gains = winner.row.measurement, Gains.of(winner)
    times = gains.seconds, gains.heuristic_seconds, gains.default_seconds
    return Row(mw, Result(mw.workload, "known", m.schedule, *times, error=m.error), m.nbytes)
