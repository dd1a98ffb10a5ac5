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
        lacking = {mw: reason for mw in self._plan.workloads if (reason := missing_kernel(mw.workload))}
        skipped = {mw: Row(mw, Result(mw.workload, "skipped", reason=reason)) for mw, reason in lacking.items()}
        rows = skipped | self._known([mw for mw in self._plan.workloads if mw not in skipped])
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
        """The rows of `todo` as they come. Other sweeps may work on the same: each has one workload at a time."""
        s = self._session
        claims = Claims(s.store, owner(), ended)
        left = list(self.todo)
        with CompilePool(s.info.renderer, s.settings.workers) as pool:
            work = _Work(self, claims, pool, progress)
            while left:
                others = []
                for mw in left:
                    with alone(s.choice.device, lambda mw=mw: progress(mw, Progress(waiting=BUSY_DEVICE))):
                        row = work.row(mw)
                    if row is None:
                        others.append(mw)
                    else:
                        yield row
                if len(others) == len(left):
                    progress(left[0], Progress(waiting="the sweeps that work on the rest"))
                    time.sleep(POLL_SECONDS)
                left = others

    def _known(self, models: Sequence[ModelWorkload]) -> dict[ModelWorkload, Row]:
        """The rows of those that have a stored result of at least this effort."""
        known = [mw for mw in models if self._is_known(mw.workload)]
        # asked last: what another sweep stores in between is there, and what one withdraws is not
        winners = self._session.store.finals(self._session.info.target) if known else ()
        served = {(w.row.measurement.workload, w.row.measurement.kernel_digest): w for w in winners}
        found = {mw: served.get((mw.workload, kernel_digest(mw.workload))) for mw in known}
        return {mw: _row_of(mw, winner) for mw, winner in found.items() if winner}

    def _copy_bandwidth(self) -> float | None:
        try:
            return self._session.runner.copy_bandwidth()
        except RunnerError:  # a figure to compare with is no reason to give up
            return None
