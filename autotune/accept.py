"""The last stage of tuning a workload: baselines and contenders are measured in turn, and a paired test accepts one.

`tune` calls it with the baselines and the fastest candidates of its search, which are the contenders. Measurements go
to the caller's `record` as soon as they are known; nothing here writes to the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autotune.trial.pipeline import COMPARE_SECONDS, Pipeline
from autotune.trial.statistics import beats, median
from autotune.trial.trial import Trial
from db.records import Measurement, Schedule, Stage, Target, Workload
from kernels.ops.registry import backend
from kernels.serve.defaults import heuristic
from kernels.serve.packaged import untuned
from kernels.tinygrad.renderers import Renderer

SEEDS = 2  # an accepted schedule must compute correct results for inputs of this number of seeds


@dataclass(frozen=True)
class Decision:
    """accepted: None if every trial failed. medians: seconds of each compared schedule, the median of its samples."""

    accepted: Trial | None
    medians: dict[Schedule, float]


def baselines(w: Workload, target: Target, ren: Renderer, with_heuristic: bool = False) -> dict[str, list[Schedule]]:
    """What a winner must beat: "default", what would be served untuned (what the packaged store has, and our default)
    and, if it is asked for or there is nothing else, "heuristic", tinygrad's over each plainly written variant."""
    found = list(untuned(w, target, ren))
    return {"heuristic": list(heuristic(w, backend(ren))) if with_heuristic or not found else [], "default": found}


def accept(
    pipeline: Pipeline,
    baselines: Sequence[Trial],
    contenders: Sequence[Trial],
    record: Callable[[Measurement], None],
    seconds: float = COMPARE_SECONDS,
) -> Decision:
    """Accepts the fastest contender that is faster than the best baseline beyond noise, else the best baseline.

    The result must also be correct for SEEDS sets of inputs. A schedule that fails this check is skipped.

    record: is called with the measurements of trials that failed while they were measured (CONTENDER), of the baselines
    that were compared (BASELINE), of schedules that were skipped (CONTENDER), and of the accepted one (FINAL).
    seconds: that the comparison may take; a slow kernel needs more.
    """

    def faulted(trial: Trial) -> None:
        record(replace(trial, samples=()).measurement(Stage.CONTENDER))

    comparison = pipeline.compare([*baselines, *contenders], faulted, seconds)
    medians = {t.schedule: median(t.samples) for t in comparison.compared}
    known = {t.schedule for t in baselines}
    compared_baselines = [t for t in comparison.compared if t.schedule in known]
    for trial in compared_baselines:
        record(trial.measurement(Stage.BASELINE))
    compared_baselines.sort(key=lambda t: medians[t.schedule])
    faster = [
        t
        for t in sorted(comparison.compared, key=lambda t: medians[t.schedule])
        if t.schedule not in known and (not compared_baselines or beats(t.samples, compared_baselines[0].samples))
    ]
    for trial in (*faster, *compared_baselines):
        checked = pipeline.validate(trial, seeds=SEEDS)
        record(checked.measurement(Stage.FINAL if checked.ok else Stage.CONTENDER))
        if checked.ok:
            return Decision(checked, medians)
    return Decision(None, medians)
