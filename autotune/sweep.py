"""Sweeps a model: tunes each of its workloads that has no stored result yet, and yields the results as they come.

Prints nothing and parses nothing. A sweep that is cut off has stored what it finished; the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property

from autotune.gains import Gains
from autotune.session import Session, missing_kernel
from autotune.trial.compiler import CompilePool
from autotune.trial.runner import RunnerError
from autotune.tune import Progress, Result, Tuner
from autotune.workloads import ModelPlan, ModelWorkload
from db.records import Workload
from kernels.ops.registry import kernel_digest, nbytes_moved

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
    """A model's sweep on one session. `command` is what the store remembers of it."""

    def __init__(self, session: Session, plan: ModelPlan, command: str) -> None:
        self._session, self._plan, self._command = session, plan, command

    @cached_property
    def settled(self) -> tuple[Row, ...]:
        """What needs no work: workloads without a kernel, and those with a stored result of at least this effort."""
        served = {
            (w.row.measurement.workload, w.row.measurement.kernel_digest): w
            for w in self._session.store.finals(self._session.info.target)
        }
        rows = []
        for mw in self._plan.workloads:
            w = mw.workload
            if reason := missing_kernel(w):
                rows.append(Row(mw, Result(w, "skipped", reason=reason)))
            elif self._is_known(w):
                winner = served[w, kernel_digest(w)]
                m, gains = winner.row.measurement, Gains.of(winner)
                times = gains.seconds, gains.heuristic_seconds, gains.default_seconds
                rows.append(Row(mw, Result(w, "known", m.schedule, *times, error=m.error), m.nbytes))
        return tuple(rows)

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
        s = self._session
        copy_bandwidth = self._copy_bandwidth()
        current = self.todo[0]
        with CompilePool(s.info.renderer, s.settings.workers) as pool:
            run = s.run(self._command, s.settings.beam_width, s.settings.budget_seconds)
            tuner = Tuner(s.store, s.runner, pool, run, lambda p: progress(current, p))
            for current in self.todo:
                try:
                    result = tuner.tune(current.workload)
                except RunnerError as e:  # no room for the inputs, say; the next workload gets a new child
                    result = Result(current.workload, "failed", reason=str(e))
                yield Row(current, result, nbytes_moved(current.workload), copy_bandwidth)

    def _is_known(self, w: Workload) -> bool:
        s = self._session.settings
        target, digest = self._session.info.target, kernel_digest(w)
        return self._session.store.has_final(w, target, digest, s.beam_width, s.budget_seconds) is not None

    def _copy_bandwidth(self) -> float | None:
        try:
            return self._session.runner.copy_bandwidth()
        except RunnerError:  # a figure to compare with is no reason to give up
            return None
