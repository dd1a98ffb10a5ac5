"""Tunes one workload: baselines, search, validation, measurement, acceptance, record. The loop that joins the stages.

Compiling and timing take turns: nothing compiles while a candidate is timed. Every candidate's fate is stored as it
becomes known, and the accepted schedule last, so that a run that is cut off loses at most the workload it was at, and
the next one starts from what this one learnt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace

from autotune.accept import accept
from autotune.search.space import Limits, Space
from autotune.search.strategies.beam import BeamSearch
from autotune.search.strategies.strategy import Strategy, Task
from autotune.trial.compiler import CompilePool
from autotune.trial.pipeline import Pipeline
from autotune.trial.runner import PrepareError, Runner
from autotune.trial.trial import Trial
from db.codec import schedule_digest
from db.records import Measurement, Run, Schedule, Stage, Target, Workload
from db.store import Store
from kernels.ops.registry import backend
from kernels.serve.defaults import defaults, heuristic
from kernels.serve.sink import default

# a probe is cut short when its first launch takes this many times the fastest so far
PROBE_SLACK = 1.3
CONTENDERS = 4
NEIGHBOURS = 3
RESUMED = 8


@dataclass(frozen=True)
class Progress:
    """Where a search stands. `best_seconds` is the fastest probe so far."""

    elapsed_seconds: float
    tried: int
    best_seconds: float | None


@dataclass(frozen=True)
class Result:
    """What became of a workload.

    status: "tuned", "baseline wins" or "failed" (reason says why); a sweep adds "known" and "skipped".
    heuristic_seconds: the fastest of our variants under tinygrad's heuristic; default_seconds: our hand-chosen
    schedule; seconds: the accepted one; all medians of samples taken in turn.
    """

    workload: Workload
    status: str
    schedule: Schedule | None = None
    seconds: float | None = None
    heuristic_seconds: float | None = None
    default_seconds: float | None = None
    error: float | None = None
    tried: int = 0
    elapsed_seconds: float = 0.0
    reason: str = ""

    @property
    def gain(self) -> float | None:
        """How many times faster than tinygrad's heuristic."""
        return self.heuristic_seconds / self.seconds if self.heuristic_seconds and self.seconds else None


class Tuner:
    """Tunes workloads one after another on one device, into one store.

    strategy: makes the strategy that proposes schedules; by default a beam search of the run's width.
    """

    def __init__(
        self,
        store: Store,
        runner: Runner,
        pool: CompilePool,
        run: Run,
        progress: Callable[[Progress], None] = lambda p: None,
        strategy: Callable[[Task], Strategy] | None = None,
    ) -> None:
        self._store, self._runner, self._pool, self._run, self._progress = store, runner, pool, run, progress
        self._strategy = strategy or (lambda task: BeamSearch(task, run.beam_width))
        self._info = runner.describe()
        self._started = False

    @property
    def target(self) -> Target:
        return self._info.target

    def tune(self, w: Workload) -> Result:
        """Searches for the run's budget. Raises RunnerError if the device is lost, StoreError if the store is."""
        if not self._started:
            self._store.start_run(self._run)
            self._started = True
        start = time.monotonic()
        self._pool.fill()  # those that the last search cut off start while inputs are made
        try:
            self._runner.prepare(w)
        except PrepareError as e:
            return Result(w, "failed", reason=str(e))
        return _Search(self, w, start).result()


class _Search:
    """The state of one workload's search."""

    def __init__(self, tuner: Tuner, w: Workload, start: float) -> None:
        self._t, self._w, self._start = tuner, w, start
        self._pipeline = Pipeline(tuner._runner, tuner._pool, w)
        self._digest = self._pipeline.subject.kernel_digest
        self._by_program: dict[str, Trial] = {}
        self._timed: dict[Schedule, Trial] = {}
        self._best = float("inf")
        self._tried = 0

    def result(self) -> Result:
        baselines = self._baselines()
        deadline = time.monotonic() + self._t._run.budget_seconds
        space = Space(self._w, self._t._info.renderer, Limits.of(self._t._info.renderer, self._w))
        known = {space.explicit(s): trial.seconds for s, trial in self._timed.items()}
        strategy = self._t._strategy(Task(space, known, self._seeds(), self._starts(space, known)))
        bad = self._t._store.known_bad(self._w, self._t.target, self._digest)
        batch_size = 2 * self._t._pool.workers
        while time.monotonic() < deadline and (batch := strategy.propose(batch_size)):
            fresh = [c for c in batch if schedule_digest(c.schedule) not in bad]
            seconds = self._evaluate([c.schedule for c in fresh], deadline)
            for candidate in fresh:
                strategy.observe(candidate, seconds.get(candidate.schedule))
        return self._decide(baselines)

    def _baselines(self) -> dict[str, list[Schedule]]:
        """tinygrad's heuristic over each variant, and our default; they are measured before anything else."""
        ren = self._t._info.renderer
        chosen = default(self._w, ren)  # what would be served untuned
        found = {"heuristic": list(heuristic(self._w, backend(ren))), "default": [chosen] if chosen else []}
        self._evaluate([s for group in found.values() for s in group], None)
        return found

    def _seeds(self) -> list[Schedule]:
        """The fastest of earlier runs, and what other shapes were tuned to."""
        store, target = self._t._store, self._t.target
        near = [s.schedule for s in store.neighbours(self._w, target, self._digest, NEIGHBOURS)]
        resumed = [m.schedule for m in store.best_probes(self._w, target, self._digest, RESUMED)]
        return [*resumed, *near]

    def _starts(self, space: Space, known: Container[Schedule]) -> list[Schedule]:
        """Elsewhere in the space: the first that was chosen by hand for each variant, and each variant bare. Others
        that were chosen by hand are for shapes where those do not apply."""
        chosen: dict[str, Schedule] = {}
        for schedule in defaults(self._w, backend(self._t._info.renderer)):
            if space.candidate(schedule):
                chosen.setdefault(schedule.variant, schedule)
        return [s for s in (*chosen.values(), *space.seeds) if s not in known]

    def _evaluate(self, schedules: Sequence[Schedule], deadline: float | None) -> dict[Schedule, float]:
        """Tries each schedule once. Seconds of those that work; all fates are stored. No deadline: as baselines."""
        fresh = [s for s in schedules if s not in self._timed]
        compiled = list(self._compile(fresh, deadline))
        seconds = {s: self._timed[s].seconds for s in schedules if s in self._timed}
        rows: list[Measurement] = []
        for trial in compiled:
            self._tried += 1
            if trial.program and (twin := self._by_program.get(trial.program.key)):
                seconds[trial.schedule] = twin.seconds  # another way to write a kernel that was timed already
            else:
                probed = self._probe(trial)
                rows.append(probed.measurement(Stage.PROBE))
                if probed.program and probed.timed:
                    self._by_program[probed.program.key] = self._timed[probed.schedule] = probed
                    seconds[probed.schedule] = probed.seconds
                    self._best = min(self._best, probed.seconds)
            self._report()
        self._t._store.record(self._t._run.id, rows)
        return seconds

    def _compile(self, schedules: Sequence[Schedule], deadline: float | None) -> Iterator[Trial]:
        for trial in self._pipeline.compile(schedules, deadline, patient=deadline is None):
            yield trial
            self._report()

    def _probe(self, trial: Trial) -> Trial:
        limit = None if self._best == float("inf") else self._best * PROBE_SLACK
        return self._pipeline.measure(self._pipeline.validate(trial), limit)

    def _decide(self, groups: dict[str, list[Schedule]]) -> Result:
        names = {name: [s for s in group if s in self._timed] for name, group in groups.items()}
        baselines = {s: self._timed[s] for group in names.values() for s in group}
        contenders = sorted((t for s, t in self._timed.items() if s not in baselines), key=lambda t: t.seconds)
        if not (baselines or contenders):
            return self._finished("failed", reason="no schedule compiles and computes rightly here; see `show`")
        decision = accept(self._pipeline, list(baselines.values()), contenders[:CONTENDERS])
        self._t._store.record(self._t._run.id, decision.rows)
        if decision.accepted is None:
            return self._finished("failed", reason="the fastest schedules failed validation with a second seed")
        schedule, medians = decision.accepted.schedule, decision.medians
        best = {name: min((medians[s] for s in group if s in medians), default=None) for name, group in names.items()}
        return self._finished(
            "baseline wins" if schedule in baselines else "tuned",
            schedule=schedule,
            seconds=medians[schedule],
            heuristic_seconds=best["heuristic"],
            default_seconds=best["default"],
            error=decision.accepted.error,
        )

    def _report(self) -> None:
        best = None if self._best == float("inf") else self._best
        self._t._progress(Progress(time.monotonic() - self._start, self._tried, best))

    def _finished(self, status: str, **found: object) -> Result:
        result = Result(self._w, status, tried=self._tried, elapsed_seconds=time.monotonic() - self._start)
        return replace(result, **found)  # type: ignore[arg-type]
