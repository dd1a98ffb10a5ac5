"""What a search that was cut off leaves, and what the next one makes of it, on a made-up device."""

from dataclasses import replace

import pytest
from support.fake_tuning import FakeClock, Fate
from support.renderers import CL
from support.tuning import HEURISTIC, QUICK, Bench, First, W, has, world

from autotune import tune
from autotune.search.space import Space
from autotune.search_log import FATAL_ATTEMPTS
from autotune.trial.runner import RunnerError
from autotune.trial.validate import Verdict
from autotune.tune import Tuner
from db.records import Outcome, Stage
from kernels.ops.registry import kernel_digest
from kernels.serve.limits import Limits


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(tune, "time", clock := FakeClock())
    return clock


@pytest.fixture
def bench(tmp_path, clock):
    return lambda world, run=QUICK, **runner: Bench(tmp_path / "store", clock, world, run, **runner)


class InTurn:
    """A strategy that proposes the bare schedules in turn, and costs nothing."""

    def __init__(self, task):
        self.space, self.left = task.space, [s for s in task.space.starts if s not in task.known]

    def propose(self, count):
        batch, self.left = self.left[:count], self.left[count:]
        return [c for c in map(self.space.candidate, batch) if c]

    def observe(self, candidate, seconds):
        pass


class CutOff:
    """Lets a runner's `verb` raise `error` at its `at`-th call; `done` are the schedules before."""

    def __init__(self, runner, verb, at, error):
        self.real, self.at, self.error, self.done = getattr(runner, verb), at, error, []
        setattr(runner, verb, self)

    def __call__(self, program, *args, **kwargs):
        if len(self.done) + 1 == self.at:
            raise self.error
        self.done.append(program.schedule)
        return self.real(program, *args, **kwargs)


def test_a_later_run_starts_from_what_an_earlier_one_learnt(bench):
    fates = world(fast := First(Fate(0.1e-3)))
    bench(fates).tune()
    later = bench(fates, replace(QUICK, id="later"))
    later.tune()
    assert fast.schedule in later.pool.schedules[len(HEURISTIC) + 1 :][: 4 * later.pool.workers]


def test_a_neighbouring_shapes_winner_is_a_seed(bench):
    here = Space(W, CL, Limits.of(CL, W))
    b = bench(world(fast := First(Fate(0.1e-3), lambda s: has(s, "UPCAST") and here.candidate(s))))
    assert b.tune(replace(W, k=128)).schedule == fast.schedule
    start = len(b.pool.compiled)
    b.tune(W)
    assert fast.schedule in b.pool.schedules[start:][: len(HEURISTIC) + 1 + 4 * b.pool.workers]


def test_an_interrupted_run_leaves_what_it_measured(bench):
    b = bench(world())
    b.pool.interrupt = 12
    with pytest.raises(KeyboardInterrupt):
        b.tune()
    probes = b.rows(Stage.PROBE)
    assert len(probes) >= len(HEURISTIC) + 1
    assert b.store.finals() == ()
    assert bench(world(), replace(QUICK, id="again")).tune().status == "tuned"


@pytest.mark.parametrize("verb", ["validate", "measure"])
@pytest.mark.parametrize("at", [2, 9])
def test_all_that_was_measured_is_stored_and_not_measured_again(bench, verb, at):
    b = bench(world())
    cut = CutOff(b.runner, verb, at, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        b.tune()
    assert [m.schedule for m in b.rows(Stage.PROBE)] == cut.done
    again = bench(world(), replace(QUICK, id="again"))
    resumed = CutOff(again.runner, "measure", 0, None)
    assert again.tune().status == "tuned"
    assert not set(cut.done) & set(resumed.done)


def test_a_crash_is_stored_though_the_device_does_not_open_again(bench):
    b = bench(world())
    real, seen = b.runner.validate, []

    def validate(program, tolerance, **options):
        seen.append(program.schedule)
        if len(seen) == 8:
            return Verdict(Outcome.CRASH, None, None, tolerance, "SIGSEGV")
        if len(seen) == 9:
            raise RunnerError("made up: the device does not open")
        return real(program, tolerance, **options)

    b.runner.validate = validate
    with pytest.raises(RunnerError):
        b.tune()
    (crash,) = [m for m in b.rows() if m.outcome is Outcome.CRASH]
    assert crash.schedule == seen[7]
    later = bench(world(), replace(QUICK, id="later"))
    later.tune()
    assert crash.schedule not in later.pool.schedules


def test_what_fails_to_compile_is_stored_before_anything_is_timed(bench):
    b = bench(world(lambda s: Fate(compiles=Outcome.COMPILE_ERROR) if s in HEURISTIC else None))
    b.pool.interrupt = 2
    with pytest.raises(KeyboardInterrupt):
        b.tune()
    assert tuple(m.schedule for m in b.rows()) == tuple(HEURISTIC[:2])


def test_a_search_that_is_killed_again_and_again_ends(bench):
    """Five candidates a life, of those that the budget lets be tried."""
    tried = []
    for life in range(9):
        run = replace(QUICK, id=f"life{life}", budget_seconds=6.0)
        b = bench(world(), run)
        b.tuner = Tuner(b.store, b.runner, b.pool, run, strategy=InTurn)
        cut = CutOff(b.runner, "measure", 6, KeyboardInterrupt())
        try:
            result = b.tune()
        except KeyboardInterrupt:
            tried += cut.done
        else:
            break
    assert result.status == "baseline wins"
    assert life >= 2
    assert len(set(tried)) == len(tried)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("how", [KeyboardInterrupt, SystemExit])
def test_who_stops_sweeps_does_not_blame_the_candidate(bench, how):
    """Two sweeps are killed during a schedule before it is called a crash; those that are stopped do not count."""
    for life in range(2 * FATAL_ATTEMPTS):
        b = bench(world(), replace(QUICK, id=f"life{life}"))
        CutOff(b.runner, "validate", 1, how())
        with pytest.raises(how):
            b.tune()
        subject = W, b.tuner.target, kernel_digest(W)
        assert b.store.attempts(*subject) == {}
    killed = bench(world(), replace(QUICK, id="killed"))
    CutOff(killed.runner, "validate", 1, Killed())
    with pytest.raises(Killed):
        killed.tune()
    assert list(b.store.attempts(*subject).values()) == [1]
    assert bench(world(), replace(QUICK, id="again")).tune().status == "tuned"
    assert not [m for m in b.rows() if m.outcome is Outcome.CRASH]


def test_a_candidate_that_takes_the_process_down_is_skipped_in_the_end(bench):
    fates = world(killer := First(Fate()))
    lives = 0
    while True:
        b = bench(fates, replace(QUICK, id=f"life{lives}"))
        real = b.runner.validate

        def validate(program, *args, real=real, **options):
            if program.schedule == killer.schedule:
                raise Killed
            return real(program, *args, **options)

        b.runner.validate = validate
        try:
            result = b.tune()
        except Killed:
            lives += 1
        else:
            break
    assert lives == FATAL_ATTEMPTS
    assert result.status == "tuned"
    (skipped,) = [m for m in b.rows() if m.outcome is Outcome.CRASH]
    assert skipped.schedule == killer.schedule
    assert "sweeps were killed" in skipped.reason
    assert b.store.attempts(W, skipped.target, skipped.kernel_digest) == {}


def test_what_other_versions_measured_is_measured_again_and_what_was_measured_under_load_is_not(bench):
    def cut_off(run, at):
        b = bench(world(), run)
        cut = CutOff(b.runner, "measure", at, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            b.tune()
        return cut.done

    first = cut_off(replace(QUICK, id="first"), 5)
    busy = cut_off(replace(QUICK, id="busy", versions=(*QUICK.versions, ("load", "other programs"))), 5)
    assert not set(first) & set(busy)
    assert cut_off(replace(QUICK, id="newer", versions=(("tinygrad", "0.14.1"),)), 5) == first
