"""Drives the stages of a trial for one workload on one device: compile in the pool, validate and measure in the runner.

Schedules compile in parallel; each is validated and measured alone. Chooses nothing and stores nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace

from autotune.tinygrad_api.lower import Program
from autotune.trial.compiler import CompilePool, Job
from autotune.trial.runner import TIMEOUT_SECONDS, Runner
from autotune.trial.trial import Subject, Trial
from db.records import Outcome, Schedule, Workload

# tinygrad's heuristic unrolls without limit; as a baseline it is compiled whatever that costs
BASELINE_UOPS = 100_000
BASELINE_SECONDS = 60.0
PROBE_LAUNCHES = 3
ROUNDS = 24
# the paired test cannot be convinced by fewer pairs
MIN_ROUNDS = 6
COMPARE_SECONDS = 10.0
# a comparison is given up after this many times what the probes promise
COMPARE_SLACK = 4.0


@dataclass(frozen=True)
class Comparison:
    """compared: trials whose samples were taken in turn, so that sample i of one pairs with sample i of another.
    faulted: trials that failed meanwhile, and failed again when they were measured alone."""

    compared: tuple[Trial, ...]
    faulted: tuple[Trial, ...]


class Pipeline:
    """The trials of one workload. The runner must have prepared it (`runner.prepare`) before any method but `compile`.

    Every method passes on a trial that failed at an earlier stage as it is. Raises RunnerError if the device is lost,
    CompilePoolError if no worker starts.
    """

    def __init__(self, runner: Runner, pool: CompilePool, workload: Workload) -> None:
        info = runner.describe()
        self._runner, self._pool = runner, pool
        self.renderer = info.renderer
        self.subject = Subject(workload, info.target, info.clock)

    def compile(
        self, schedules: Sequence[Schedule], deadline: float | None = None, *, patient: Container[Schedule] = ()
    ) -> Iterator[Trial]:
        """A trial of each schedule as it is compiled, up to `deadline` (of time.monotonic).

        patient: schedules that have the limits of a baseline instead of the pool's.
        """
        patience = (BASELINE_UOPS, BASELINE_SECONDS)
        jobs = [Job(s, self.subject.workload, s, *(patience if s in patient else (None, None))) for s in schedules]
        for done in self._pool.compile(jobs, deadline):
            assert isinstance(done.key, Schedule)
            yield Trial(self.subject, done.key).compiled(done.outcome, done.reason, done.program)

    def validate(self, trial: Trial, seeds: int = 1) -> Trial:
        """Launches once for each of `seeds` sets of inputs."""
        if trial.program is None or not trial.ok:
            return trial
        return trial.validated(self._runner.validate(trial.program, trial.tolerance, seeds=seeds))

    def measure(self, trial: Trial, stop_above_seconds: float | None = None) -> Trial:
        """Takes PROBE_LAUNCHES samples, or fewer once one is over `stop_above_seconds`, which is the outcome SLOW."""
        if trial.program is None or not trial.ok:
            return trial
        return trial.measured(
            self._runner.measure(trial.program, PROBE_LAUNCHES, stop_above_seconds=stop_above_seconds)
        )

    def compare(
        self,
        trials: Sequence[Trial],
        on_fault: Callable[[Trial], None] = lambda trial: None,
        seconds: float = COMPARE_SECONDS,
    ) -> Comparison:
        """Takes samples of measured trials in turn, for `seconds`, but at least MIN_ROUNDS of each.

        After a fault, the trials that fail again when they are alone are left out and the others are compared anew. If
        each works alone, the slowest is left out. on_fault: is told of a trial that failed as soon as that is known.
        """
        field = [t for t in trials if t.timed]
        faulted: list[Trial] = []
        while field:
            once = sum(t.seconds for t in field)
            rounds = int(min(ROUNDS, max(MIN_ROUNDS, seconds / once)))
            patience = TIMEOUT_SECONDS + COMPARE_SLACK * rounds * once
            timings = self._runner.compare([_program(t) for t in field], rounds, timeout_seconds=patience)
            if all(t.outcome is Outcome.OK for t in timings):
                return Comparison(tuple(t.measured(of) for t, of in zip(field, timings, strict=True)), tuple(faulted))
            broken: list[Trial] = []
            for again in (self.measure(replace(t, outcome=Outcome.OK, error=None)) for t in field):
                if not again.ok:
                    broken.append(again)
                    on_fault(again)
            faulted += broken
            left_out = {t.schedule for t in broken} or {max(field, key=lambda t: t.seconds).schedule}
            field = [t for t in field if t.schedule not in left_out]
        return Comparison((), tuple(faulted))


def _program(trial: Trial) -> Program:
    assert trial.program is not None
    return trial.program
