"""The frozen values of a trial: what is tried, and how far a schedule came. Only this module makes Measurements."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from db.records import Measurement, Outcome, Schedule, Stage, Target, Workload
from kernels.ops.registry import kernel_digest, nbytes_moved
from kernels.ops.tolerance import tolerance

if TYPE_CHECKING:
    from autotune.tinygrad_api.lower import Program
    from autotune.trial.messages import Timing
    from autotune.trial.validate import Verdict

REASON_LENGTH = 300
DIGITS = 10  # of a sample in seconds, as it is stored


@dataclass(frozen=True)
class Subject:
    """A workload on a target. clock: where its seconds come from, "" where nothing can be timed."""

    workload: Workload
    target: Target
    clock: str = ""

    @cached_property
    def kernel_digest(self) -> str:
        return kernel_digest(self.workload)


@dataclass(frozen=True)
class Trial:
    """How far one schedule came. Each stage returns a new Trial; a later stage needs the outcome OK of the one before.

    program: there is one once the schedule has compiled. error: the relative error of its output, once it was
    validated. samples: seconds of launches, once it was measured. reason: why the outcome is not OK.
    """

    subject: Subject
    schedule: Schedule
    outcome: Outcome = Outcome.OK
    reason: str = ""
    program: Program | None = None
    error: float | None = None
    samples: tuple[float, ...] = ()

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def tolerance(self) -> float:
        """The largest error that this variant may have."""
        return tolerance(self.subject.workload, self.schedule.variant)

    @property
    def timed(self) -> bool:
        """Whether the schedule computes rightly and its speed is known, if only as too slow."""
        return self.outcome in (Outcome.OK, Outcome.SLOW) and bool(self.samples)

    @property
    def seconds(self) -> float:
        """The fastest sample."""
        return min(self.samples)

    def compiled(self, outcome: Outcome, reason: str, program: Program | None) -> Trial:
        return replace(self, outcome=outcome, reason=reason, program=program)

    def validated(self, verdict: Verdict) -> Trial:
        return replace(self, outcome=verdict.outcome, reason=verdict.reason, error=verdict.error)

    def measured(self, timing: Timing) -> Trial:
        return replace(self, outcome=timing.outcome, reason=timing.reason[:REASON_LENGTH], samples=timing.samples)

    def failed(self, outcome: Outcome, reason: str) -> Trial:
        return replace(self, outcome=outcome, reason=reason)

    def measurement(self, stage: Stage) -> Measurement:
        """The row to store, its samples rounded to 0.1 ns. One of the stage VERIFY has no samples, so it names no
        clock."""
        subject = self.subject
        return Measurement(
            subject.workload,
            subject.target,
            self.schedule,
            subject.kernel_digest,
            stage,
            self.outcome,
            tuple(round(s, DIGITS) for s in self.samples),
            nbytes_moved(subject.workload),
            self.error,
            self.tolerance,
            self.reason,
            "" if stage is Stage.VERIFY else subject.clock,
        )
