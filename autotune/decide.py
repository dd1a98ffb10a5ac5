"""Which schedule is accepted: baselines and contenders take turns on the device, and a paired test decides.

The last stage of tuning a workload. It measures through the runner and returns rows; it searches and stores nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autotune import measure
from autotune.runner import TIMEOUT_SECONDS, Runner
from autotune.tinygrad_api.lower import Program
from db.records import Measurement, Outcome, Schedule, Stage

PROBE_LAUNCHES = 3
ROUNDS = 24
# fewer pairs than this cannot convince the paired test
MIN_ROUNDS = 6
COMPARE_SECONDS = 10.0
# a comparison may take this many times what the probes promise
COMPARE_SLACK = 4.0

Samples = dict[Schedule, tuple[float, ...]]


@dataclass(frozen=True)
class Entry:
    """A schedule that compiled and computed rightly; `seconds` is its fastest probe, `tolerance` its variant's."""

    schedule: Schedule
    program: Program
    error: float
    tolerance: float
    seconds: float


@dataclass(frozen=True)
class Decision:
    """The accepted entry, or None if each failed; everyone's median seconds; and what is to be stored, in order."""

    accepted: Entry | None
    medians: dict[Schedule, float]
    rows: list[Measurement]


class Judge:
    """`row(schedule, stage, outcome, samples, error, reason)` makes the measurements of the workload in hand."""

    def __init__(self, runner: Runner, row: Callable[..., Measurement]) -> None:
        self._runner, self._row = runner, row
        self._rows: list[Measurement] = []

    def decide(self, baselines: Sequence[Entry], contenders: Sequence[Entry]) -> Decision:
        """The fastest contender that beats the best baseline beyond noise, else that baseline; both must compute
        rightly with a second set of inputs too."""
        samples = self._compare([*baselines, *contenders])
        medians = {s: measure.median(taken) for s, taken in samples.items()}
        judged = [e for e in baselines if e.schedule in samples]
        self._rows += [self._row(e.schedule, Stage.BASELINE, Outcome.OK, samples[e.schedule], e.error) for e in judged]
        order = sorted((e for e in [*judged, *contenders] if e.schedule in samples), key=lambda e: medians[e.schedule])
        incumbent = next((e for e in order if e in judged), None)
        winners = [
            e
            for e in order
            if e not in judged
            and (incumbent is None or measure.beats(samples[e.schedule], samples[incumbent.schedule]))
        ]
        ranked = [*winners, *(e for e in order if e in judged)]
        return Decision(next((e for e in ranked if self._passes(e, samples)), None), medians, self._rows)

    def _passes(self, entry: Entry, samples: Samples) -> bool:
        """Validates with two seeds; the row of the one that passes is the workload's FINAL."""
        verdict = self._runner.validate(entry.program, entry.tolerance, seeds=2)
        right = verdict.outcome is Outcome.OK
        stage = Stage.FINAL if right else Stage.CONTENDER
        self._rows.append(
            self._row(entry.schedule, stage, verdict.outcome, samples[entry.schedule], verdict.error, verdict.reason)
        )
        return right

    def _compare(self, field: list[Entry]) -> Samples:
        """Samples of each taken in turn. A program that faults here is left out and the others go again; if each
        works when alone, the slowest is left out."""
        while field:
            once = sum(e.seconds for e in field)
            rounds = int(min(ROUNDS, max(MIN_ROUNDS, COMPARE_SECONDS / once)))
            patience = TIMEOUT_SECONDS + COMPARE_SLACK * rounds * once
            timings = self._runner.compare([e.program for e in field], rounds, timeout_seconds=patience)
            if all(t.outcome is Outcome.OK for t in timings):
                return {e.schedule: t.samples for e, t in zip(field, timings, strict=True)}
            working = [e for e in field if self._still_works(e)]
            slowest = max(field, key=lambda e: e.seconds)
            field = working if len(working) < len(field) else [e for e in field if e is not slowest]
        return {}

    def _still_works(self, entry: Entry) -> bool:
        timing = self._runner.measure(entry.program, PROBE_LAUNCHES)
        right = timing.outcome is Outcome.OK
        if not right:
            self._rows.append(self._row(entry.schedule, Stage.CONTENDER, timing.outcome, reason=timing.reason))
        return right
