"""Tunes one workload: baselines, search, validation, measurement, acceptance, record. The loop that joins the stages.

A run's budget is the wall time of a workload, from its inputs to its acceptance. The first candidates compile while the
device makes the inputs; nothing compiles while a candidate is timed. Every candidate's fate is stored as it becomes
known, and the accepted schedule last. A search that was cut off is gone on with: what it measured is not measured
again, and the seconds that it searched count against the budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace

from autotune.accept import accept, baselines
from autotune.result import Progress, Result
from autotune.search.ranking import Ranking, around, promising
from autotune.search.space import Space
from autotune.search.strategies.beam import BeamSearch
from autotune.search.strategies.strategy import Strategy, Task
from autotune.search_log import SearchLog
from autotune.trial.compiler import CompilePool
from autotune.trial.pipeline import Pipeline
from autotune.trial.runner import PrepareError, Runner
from autotune.trial.trial import Trial
from db.codec import schedule_digest
from db.records import Run, Schedule, Stage, Target, Workload
from db.store import Store
from kernels.ops.registry import backend
from kernels.serve.defaults import defaults
from kernels.serve.limits import Limits

__all__ = ["Progress", "Result", "Tuner"]

# a probe is cut short when its first launch takes this many times the fastest so far
PROBE_SLACK = 1.3
CONTENDERS = 4
NEIGHBOURS = 3
RESUMED = 8
RANKED = 5_000  # the newest timings of an op, which say what a schedule of another shape may take
# of a budget: for comparing the fastest and checking the winner with a second seed
DECIDING = 0.15
# of a budget at most: for timing what has compiled, by what a probe took so far. What still compiles then is given up
PROBING = 0.1
PROBE_SECONDS = 0.05  # expected of the first probes
# a batch is begun if this share of the last one's time is left: what still compiles at the deadline is killed, and a
# new worker takes a second to start
ENOUGH = 0.7


class Tuner:
    """Tunes workloads one after another on one device, into one store.

    strategy: makes the strategy that proposes schedules; by default a beam search of the run's width. heuristic: also
    compile and time what tinygrad's heuristic makes of our variants, which can take a minute. started: the run is
    stored already.
    """

    def __init__(
        self,
        store: Store,
        runner: Runner,
        pool: CompilePool,
        run: Run,
        progress: Callable[[Progress], None] = lambda p: None,
        strategy: Callable[[Task], Strategy] | None = None,
        *,
        heuristic: bool = False,
        started: bool = False,
    ) -> None:
        self._store, self._runner, self._pool, self._run, self._progress = store, runner, pool, run, progress
        self._strategy = strategy or (lambda task: BeamSearch(task, run.beam_width))
        self._info = runner.describe()
        self._heuristic, self._started = heuristic, started

    @property
    def target(self) -> Target:
        return self._info.target

    def tune(self, w: Workload) -> Result:
        """Searches for the run's budget. Raises RunnerError if the device is lost, StoreError if the store is."""
        if not self._started:
            self._store.start_run(self._run)
            self._started = True
        self._pool.ready()  # that workers import is no part of a workload's time
        start = time.monotonic()
        self._runner.begin(w)
        try:
            with self._store.kept_open():
                return _Search(self, w, start).result()
        except PrepareError as e:
            return Result(w, "failed", reason=str(e))


class _Search:
    """The state of one workload's search."""

    def __init__(self, tuner: Tuner, w: Workload, start: float) -> None:
        self._t, self._w, self._start = tuner, w, start
        self._pipeline = Pipeline(tuner._runner, tuner._pool, w)
        self._log = SearchLog(tuner._store, tuner._run, self._pipeline.subject)
        self._digest = self._pipeline.subject.kernel_digest
        self._by_program: dict[str, Trial] = {}
        self._timed = dict(self._log.timed)
        self._best = min((t.seconds for t in self._timed.values()), default=float("inf"))
        self._seen: set[Schedule] = set()  # what was compiled, or did not compile
        self._prepared = False
        self._batch_seconds, self._probe_seconds = 0.0, PROBE_SECONDS

    def result(self) -> Result:
        groups = baselines(self._w, self._t.target, self._t._info.renderer, self._t._heuristic)
        known = [s for group in groups.values() for s in group]
        served = self._t._store.served(self._w, self._t.target, self._digest)
        always = [*known, *([served] if served else [])]  # whatever the budget: nothing slower takes its place
        # where nothing works yet, a search that was cut off has used nothing up
        spent = self._log.spent_seconds(known) if self._timed else 0.0
        self._search(always, self._start + (1 - DECIDING) * self._t._run.budget_seconds - spent)
        return self._decide(groups)

    def _search(self, baselines: Sequence[Schedule], deadline: float) -> None:
        """Tries the baselines, however long they take, and what the strategy proposes up to `deadline` (of
        time.monotonic)."""
        space = Space(self._w, self._t._info.renderer, Limits.of(self._t._info.renderer, self._w))
        timings = self._t._store.target_timings(self._t.target, self._w.op, RANKED)
        expected = Ranking.fit(t for t in timings if t[0] != self._w).of(self._w)
        seeds = self._seeds()
        # of these nothing has to be worked out before they compile
        fixed = [s for s in space.starts if not space.schedulable(s)]
        fixed = promising(fixed, expected or around(baselines), self._t._pool.workers)
        seeds += [] if fixed else promising(space.starts, expected, NEIGHBOURS)
        self._evaluate([*baselines, *(s for s in seeds if space.candidate(s)), *fixed], deadline, baselines)
        known = {space.explicit(s): trial.seconds for s, trial in self._timed.items()}
        left = [s for s in seeds if s not in self._seen]  # the strategy need not size up again what was tried
        strategy = self._t._strategy(Task(space, known, left, self._starts(space, known), expected))
        while self._has_time(deadline) and (batch := strategy.propose(self._t._pool.workers)):
            seconds = self._evaluate([c.schedule for c in batch], deadline)
            for candidate in batch:
                strategy.observe(candidate, seconds.get(candidate.schedule))

    def _has_time(self, deadline: float) -> bool:
        """Whether another batch, which takes as long as the last one, would be done in time, or nearly."""
        return time.monotonic() + ENOUGH * self._batch_seconds < deadline

    def _seeds(self) -> list[Schedule]:
        """The fastest of earlier runs, and what other shapes were tuned to."""
        store, target = self._t._store, self._t.target
        near = [s.schedule for s in store.neighbours(self._w, target, self._digest, NEIGHBOURS)]
        resumed = [m.schedule for m in store.best_probes(self._w, target, self._digest, RESUMED)]
        return [*resumed, *near]

    def _starts(self, space: Space, known: Container[Schedule]) -> Iterator[Schedule]:
        """Elsewhere in the space: the first that was chosen by hand for each variant, and each variant bare. Others
        that were chosen by hand are for shapes where those do not apply."""
        chosen: dict[str, Schedule] = {}
        for schedule in defaults(self._w, backend(self._t._info.renderer)):
            if space.candidate(schedule):
                chosen.setdefault(schedule.variant, schedule)
        yield from (s for s in (*chosen.values(), *space.seeds) if s not in known)

    def _evaluate(
        self, schedules: Sequence[Schedule], deadline: float, baselines: Container[Schedule] = ()
    ) -> dict[Schedule, float]:
        """Tries each schedule once, but for those that failed before, up to `deadline`; `baselines` whatever the time.
        Seconds of those that work; each fate is stored as it becomes known."""
        start = time.monotonic()
        seconds = {s: self._timed[s].seconds for s in schedules if s in self._timed}
        untried = [s for s in dict.fromkeys(schedules) if s not in self._timed and s not in self._seen]
        fresh = [s for s in untried if schedule_digest(s) not in self._log.bad]
        reserve = min(PROBING * self._t._run.budget_seconds, len(fresh) * self._probe_seconds)
        trials = list(self._compile(fresh, deadline - reserve, baselines))
        lacking = [s for s in fresh if s in baselines and s not in self._seen]
        trials += self._compile(lacking, None, baselines)
        self._prepare()
        probing, probed = time.monotonic(), 0
        order = {s: i for i, s in enumerate(fresh)}  # the most promising first, not what compiled first
        for trial in sorted(trials, key=lambda t: (t.schedule not in baselines, order[t.schedule])):
            if time.monotonic() >= deadline and trial.schedule not in baselines:
                break
            twin = self._by_program.get(_key(trial))
            if twin and trial.schedule not in baselines:  # each baseline has a figure of its own
                seconds[trial.schedule] = twin.seconds  # another way to write a kernel that was timed already
                continue
            trial, probed = self._probe(trial), probed + 1
            if trial.timed:
                self._by_program[_key(trial)] = self._timed[trial.schedule] = trial
                seconds[trial.schedule] = trial.seconds
                self._best = min(self._best, trial.seconds)
            self._report()
        self._batch_seconds = time.monotonic() - start
        if probed:
            self._probe_seconds = (time.monotonic() - probing) / probed
        return seconds

    def _prepare(self) -> None:
        """Waits for the inputs. Raises PrepareError."""
        if not self._prepared:
            self._t._runner.prepare(self._w)
            self._prepared = True

    def _compile(
        self, schedules: Sequence[Schedule], deadline: float | None, patient: Container[Schedule]
    ) -> Iterator[Trial]:
        """Those that compile; the others are stored. patient: those with the limits of a baseline."""
        for trial in self._pipeline.compile(schedules, deadline, patient=patient):
            self._seen.add(trial.schedule)
            if trial.program:
                yield trial
            else:
                self._log.record(trial.measurement(Stage.PROBE))
            self._report()

    def _probe(self, trial: Trial) -> Trial:
        """The trial, validated and timed, and stored."""
        limit = None if self._best == float("inf") else self._best * PROBE_SLACK
        trial = self._log.attempt(trial)
        try:
            trial = self._pipeline.measure(self._pipeline.validate(trial), limit)
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM: somebody wants this process to end
            self._log.forgive(trial)
            raise
        self._log.record(trial.measurement(Stage.PROBE))
        return trial

    def _with_programs(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials, those that an earlier search left compiled again."""
        lacking = {t.schedule: t for t in trials if t.program is None}
        again = {t.schedule: t.program for t in self._compile(list(lacking), None, lacking)}
        return [
            t if t.program else replace(t, program=again[t.schedule])
            for t in trials
            if t.program or t.schedule in again
        ]

    def _decide(self, groups: dict[str, list[Schedule]]) -> Result:
        names = {name: [s for s in group if s in self._timed] for name, group in groups.items()}
        baselines = {s: self._timed[s] for group in names.values() for s in group}
        contenders = sorted((t for s, t in self._timed.items() if s not in baselines), key=lambda t: t.seconds)
        if not (baselines or contenders):
            return self._finished("failed", reason="no schedule compiles and computes rightly here; see `show`")
        self._prepare()
        ready = self._with_programs([*baselines.values(), *contenders[:CONTENDERS]])
        decision = accept(
            self._pipeline,
            [t for t in ready if t.schedule in baselines],
            [t for t in ready if t.schedule not in baselines],
            self._log.record,
            DECIDING * self._t._run.budget_seconds,
        )
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
        self._t._progress(Progress(time.monotonic() - self._start, len(self._seen), best))

    def _finished(self, status: str, **found: object) -> Result:
        result = Result(self._w, status, tried=len(self._seen), elapsed_seconds=time.monotonic() - self._start)
        return replace(result, **found)  # type: ignore[arg-type]


def _key(trial: Trial) -> str:
    assert trial.program is not None
    return trial.program.key
