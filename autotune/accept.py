"""The last stage of tuning a workload: baselines and contenders are measured in turn, and a paired test accepts one.

Hands on each measurement when it is known; it does not search and does not write to the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autotune.trial.pipeline import Pipeline
from autotune.trial.statistics import beats, median
from autotune.trial.trial import Trial
from db.records import Measurement, Schedule, Stage

SEEDS = 2  # an accepted schedule must compute correct results for inputs of this number of seeds


@dataclass(frozen=True)
class Decision:
    """accepted: None if every trial failed. medians: seconds of each compared schedule."""

    accepted: Trial | None
    medians: dict[Schedule, float]


def accept(
    pipeline: Pipeline,
    baselines: Sequence[Trial],
    contenders: Sequence[Trial],
    record: Callable[[Measurement], None],
) -> Decision:
    """Accepts the fastest contender that is faster than the best baseline beyond noise, else the best baseline.

    The result must also be correct for a second set of inputs. A schedule that fails this check is skipped.
    """

    def faulted(trial: Trial) -> None:
        record(replace(trial, samples=()).measurement(Stage.CONTENDER))

    comparison = pipeline.compare([*baselines, *contenders], faulted)
    medians = {t.schedule: median(t.samples) for t in comparison.compared}
    known = {t.schedule for t in baselines}
    judged = [t for t in comparison.compared if t.schedule in known]
    for trial in judged:
        record(trial.measurement(Stage.BASELINE))
    judged.sort(key=lambda t: medians[t.schedule])
    winners = [
        t
        for t in sorted(comparison.compared, key=lambda t: medians[t.schedule])
        if t.schedule not in known and (not judged or beats(t.samples, judged[0].samples))
    ]
    for trial in (*winners, *judged):
        checked = pipeline.validate(trial, seeds=SEEDS)
        record(checked.measurement(Stage.FINAL if checked.ok else Stage.CONTENDER))
        if checked.ok:
            return Decision(checked, medians)
    return Decision(None, medians)
