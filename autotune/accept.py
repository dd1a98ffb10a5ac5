"""Decides which schedule is accepted: baselines and contenders take turns on the device, and a paired test decides.

The last stage of tuning a workload. It returns rows; it searches and stores nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autotune.trial.pipeline import Pipeline
from autotune.trial.statistics import beats, median
from autotune.trial.trial import Trial
from db.records import Measurement, Schedule, Stage

SEEDS = 2  # sets of inputs that an accepted schedule must compute rightly


@dataclass(frozen=True)
class Decision:
    """The accepted trial, or None if each failed; everyone's median seconds; and what is to be stored, in order."""

    accepted: Trial | None
    medians: dict[Schedule, float]
    rows: list[Measurement]


def accept(pipeline: Pipeline, baselines: Sequence[Trial], contenders: Sequence[Trial]) -> Decision:
    """Accepts the fastest contender that beats the best baseline beyond noise, else that baseline.

    What is accepted computes rightly with a second set of inputs too; what does not gives way to the next.
    """
    comparison = pipeline.compare([*baselines, *contenders])
    rows = [replace(t, samples=()).measurement(Stage.CONTENDER) for t in comparison.faulted]
    medians = {t.schedule: median(t.samples) for t in comparison.compared}
    known = {t.schedule for t in baselines}
    judged = [t for t in comparison.compared if t.schedule in known]
    rows += [t.measurement(Stage.BASELINE) for t in judged]
    judged.sort(key=lambda t: medians[t.schedule])
    winners = [
        t
        for t in sorted(comparison.compared, key=lambda t: medians[t.schedule])
        if t.schedule not in known and (not judged or beats(t.samples, judged[0].samples))
    ]
    for trial in (*winners, *judged):
        checked = pipeline.validate(trial, seeds=SEEDS)
        rows.append(checked.measurement(Stage.FINAL if checked.ok else Stage.CONTENDER))
        if checked.ok:
            return Decision(checked, medians, rows)
    return Decision(None, medians, rows)
