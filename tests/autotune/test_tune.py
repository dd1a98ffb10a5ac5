"""The tuning loop, on a made-up device: what is accepted, what never is, and what a later run makes of an earlier one.

One test at the end tunes a small workload on a real device.
"""

from dataclasses import replace

import pytest
from support.cpu_device import cpu
from support.fake_tuning import TARGET, FakeClock, Fate, by_name
from support.store_rows import RUN, fact, opened
from support.tuning import DEFAULTS, HEURISTIC, QUICK, Bench, First, W, has, world

from autotune import tune
from autotune.trial.compiler import CompilePool
from autotune.trial.pipeline import BASELINE_UOPS
from autotune.trial.runner import Runner
from autotune.tune import Tuner
from db.codec import schedule_digest
from db.exchange import export_payload, import_payload
from db.records import Opt, Outcome, Schedule, Served, Stage, Workload
from db.store import Store
from kernels.ops.registry import kernel_digest

DIGEST = kernel_digest(W)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "time", clock := FakeClock())
    return lambda world, run=QUICK, **runner: Bench(tmp_path / "store", clock, world, run, **runner)


def test_the_fastest_is_accepted_and_served(bench):
    fast = First(Fate(0.1e-3))
    b = bench(world(fast))
    result = b.tune()
    assert result.status == "tuned"
    assert result.schedule == fast.schedule
    assert (result.seconds, result.heuristic_seconds) == (0.1e-3, 1e-3)
    assert result.gain == pytest.approx(10)
    assert result.error == 1e-7
    (final,) = b.rows(Stage.FINAL)
    assert (final.schedule, final.target, final.kernel_digest) == (result.schedule, TARGET, DIGEST)
    assert len(final.samples) >= 20
    assert final.nbytes > 0
    assert [w.row.measurement.schedule for w in b.store.finals()] == [result.schedule]
    assert result.tried == len(b.pool.compiled)


def test_baselines_come_first_whatever_they_cost_to_compile(bench):
    b = bench(world())
    result = b.tune()
    first = b.pool.compiled[: len(HEURISTIC) + 1]
    assert {j.schedule for j in first[: len(HEURISTIC)]} == set(HEURISTIC)
    assert all(j.max_uops == BASELINE_UOPS for j in first)
    assert all(j.max_uops is None for j in b.pool.compiled[len(first) :])
    assert {m.schedule for m in b.rows(Stage.BASELINE)} == {j.schedule for j in first}
    assert result.default_seconds is not None


def test_the_default_is_the_first_that_applies(bench):
    """For 2 blocks a row, most of the hand-chosen schedules ask for more threads than there are blocks."""
    b = bench(world())
    b.tune()
    default = b.pool.schedules[len(HEURISTIC)]
    assert default in DEFAULTS[1:]
    assert {m.outcome for m in b.rows()} <= {Outcome.OK, Outcome.SLOW}


def test_no_schedule_is_compiled_twice_in_a_run(bench):
    b = bench(world())
    b.tune()
    assert len(set(b.pool.schedules)) == len(b.pool.schedules) > 10


@pytest.mark.parametrize("seed", range(3))
def test_a_gain_that_noise_hides_is_not_accepted(bench, seed):
    b = bench(world(tuned=0.99e-3), noise=0.3)
    b.runner.random.seed(seed)
    result = b.tune()
    assert result.status == "baseline wins"
    (final,) = b.rows(Stage.FINAL)
    assert final.schedule == result.schedule
    assert final.schedule in {m.schedule for m in b.rows(Stage.BASELINE)}


def test_a_gain_within_noise_but_real_is_accepted(bench):
    assert bench(world(tuned=0.8e-3), noise=0.1).tune().status == "tuned"


def test_a_slower_candidate_never_beats_the_baseline(bench):
    result = bench(world(lambda s: None if s.opts is None else Fate(2e-3))).tune()
    assert result.status == "baseline wins"
    assert result.schedule in HEURISTIC
    assert result.seconds == 1e-3


def test_wrong_results_are_recorded_and_never_accepted_nor_tried_again(bench):
    def fates(s):
        return Fate(1e-5, seeds=0) if has(s, "UPCAST") else None

    b = bench(world(fates))
    result = b.tune()
    assert result.status == "tuned"
    assert not has(result.schedule, "UPCAST")
    wrong = [m for m in b.rows() if m.outcome is Outcome.WRONG_RESULT]
    assert wrong
    assert all(m.stage is Stage.PROBE and m.reason == "made up error" and m.samples == () for m in wrong)
    later = bench(world(fates), replace(QUICK, id="later"))
    later.tune()
    assert not {m.schedule for m in wrong} & set(later.pool.schedules[len(HEURISTIC) + 1 :])


def test_a_second_seed_that_fails_gives_way_to_the_next(bench):
    b = bench(world(lucky := First(Fate(0.1e-3, seeds=1))))
    result = b.tune()
    assert result.status == "tuned"
    assert result.seconds == 0.5e-3
    (refused,) = b.rows(Stage.CONTENDER)
    assert (refused.schedule, refused.outcome) == (lucky.schedule, Outcome.WRONG_RESULT)
    assert [w.row.measurement.schedule for w in b.store.finals()] == [result.schedule]


def test_when_all_fail_the_second_seed_nothing_is_served(bench):
    b = bench(world(lambda s: Fate(seeds=1)))
    result = b.tune()
    assert (result.status, result.schedule) == ("failed", None)
    assert "second seed" in result.reason
    assert b.store.finals() == ()


def test_a_crash_while_comparing_is_left_out(bench):
    b = bench(world(faulty := First(Fate(0.1e-3, fault=Outcome.CRASH))))
    result = b.tune()
    assert result.status == "tuned"
    assert result.seconds == 0.5e-3
    (crashed,) = b.rows(Stage.CONTENDER)
    assert (crashed.schedule, crashed.outcome) == (faulty.schedule, Outcome.CRASH)


def test_a_comparison_that_never_works_ends(bench):
    """Each program works when alone: nothing says which to leave out, and yet it must not go on for ever."""
    b = bench(world(), compares=Outcome.TIMEOUT)
    result = b.tune()
    assert result.status == "failed"
    assert b.runner.calls.count("compare") <= 10
    assert b.store.finals() == ()


def test_without_a_working_baseline_a_candidate_is_accepted(bench):
    bad = {*HEURISTIC, *DEFAULTS}
    b = bench(world(lambda s: Fate(compiles=Outcome.COMPILE_ERROR) if s in bad else None))
    result = b.tune()
    assert result.status == "tuned"
    assert (result.heuristic_seconds, result.default_seconds, result.gain) == (None, None, None)


@pytest.mark.parametrize("outcome", [Outcome.COMPILE_ERROR, Outcome.TIMEOUT, Outcome.CRASH, Outcome.SLOW])
def test_when_nothing_compiles_it_failed(bench, outcome):
    b = bench(world(lambda s: Fate(compiles=outcome)))
    result = b.tune()
    assert result.status == "failed"
    assert "no schedule compiles" in result.reason
    assert {(m.stage, m.outcome, m.reason) for m in b.rows()} == {(Stage.PROBE, outcome, f"made up {outcome}")}


def test_a_workload_without_inputs_failed_and_the_next_goes_on(bench):
    b = bench(world(), refuses=True)
    assert b.tune().status == "failed"
    assert b.tune().reason == "made up: no inputs"
    b.runner.refuses = False
    assert b.tune().status == "tuned"


def verified(store, w, schedule, tmp_path):
    """Imports a schedule that another machine of the same target tuned, and finds it right here."""
    claim = fact(workload=w, target=TARGET, kernel_digest=DIGEST, schedule=schedule)
    abroad = opened(tmp_path / "abroad.sqlite", claim, run=replace(RUN, id="abroad"))
    import_payload(store, export_payload(abroad))
    store.start_run(replace(RUN, id="import"))
    store.record("import", [replace(claim, stage=Stage.VERIFY, samples=())])


@pytest.mark.parametrize(("seconds", "status"), [(0.1e-3, "tuned"), (3e-3, "baseline wins")])
def test_an_import_that_was_found_right_competes_whatever_the_budget(bench, tmp_path, seconds, status):
    imported = Schedule("factored", (("lanes", 4), ("words", 8)), (Opt("UPCAST", None, 2, "1"),))
    b = bench(world(lambda s: Fate(seconds) if by_name(s) == imported else None), replace(QUICK, budget_seconds=0.0))
    verified(b.store, W, imported, tmp_path)
    result = b.tune()
    assert result.status == status
    assert (result.schedule == imported) == (status == "tuned")
    assert b.rows(Stage.FINAL)[0].schedule == result.schedule == b.store.served(W, TARGET, DIGEST)


def test_progress_only_goes_forward(bench):
    b = bench(world())
    result = b.tune()
    assert [p.tried for p in b.seen] == sorted(p.tried for p in b.seen)
    assert [p.elapsed_seconds for p in b.seen] == sorted(p.elapsed_seconds for p in b.seen)
    best = [p.best_seconds for p in b.seen if p.best_seconds is not None]
    assert best == sorted(best, reverse=True)
    assert b.seen[-1].tried == result.tried
    assert best[-1] == 0.5e-3


def test_no_budget_still_measures_the_baselines(bench):
    b = bench(world(), replace(QUICK, budget_seconds=0.0))
    result = b.tune()
    assert result.tried == len(HEURISTIC) + 1
    assert result.schedule in {*HEURISTIC, *DEFAULTS}
    assert result.seconds == min(result.heuristic_seconds, result.default_seconds)


def test_the_heuristic_is_measured_only_on_request(bench):
    b = bench(world())
    b.tuner = Tuner(b.store, b.runner, b.pool, QUICK)
    result = b.tune()
    assert not set(HEURISTIC) & set(b.pool.schedules)
    assert (result.status, result.heuristic_seconds, result.default_seconds) == ("tuned", None, 1e-3)


def test_a_default_that_is_the_heuristics_kernel_has_both_figures(bench):
    b = bench(world())
    b.pool.key = lambda s: "the same" if s in HEURISTIC or by_name(s) in DEFAULTS else schedule_digest(by_name(s))
    result = b.tune()
    assert (result.heuristic_seconds, result.default_seconds) == (1e-3, 1e-3)
    assert len(b.rows(Stage.BASELINE)) == len(HEURISTIC) + 1


@pytest.mark.parametrize("budget_seconds", [5.0, 16.0, 30.0])
def test_a_budget_is_the_time_of_a_workload_with_all_that_it_takes(bench, budget_seconds):
    b = bench(world(), replace(QUICK, budget_seconds=budget_seconds))
    assert 0.8 * budget_seconds <= b.tune().elapsed_seconds <= 1.2 * budget_seconds


def test_timings_of_other_workloads_choose_what_is_compiled_first(bench, monkeypatch):
    b = bench(world())
    chosen = Schedule("factored", (("lanes", 16), ("words", 8)), ())
    others = [replace(W, n=n) for n in (64, 96)]
    starts = [Schedule("factored", (("lanes", x), ("words", y)), ()) for x in (1, 2, 4, 8, 16) for y in (1, 2, 4, 8)]
    known = [(w, s, 1e-6 if s == chosen else 1e-3) for w in others for s in starts]
    monkeypatch.setattr(Store, "target_timings", lambda self, target, op, limit: tuple(known))
    b.tuner = Tuner(b.store, b.runner, b.pool, QUICK)
    b.tune()
    assert chosen in b.pool.schedules[1:6]


def test_what_another_shape_was_tuned_to_is_compiled_once_though_it_fails(bench, monkeypatch):
    seed = Schedule("factored", (("lanes", 1), ("words", 4)), (Opt("UPCAST", None, 2, "1"),))
    near = Served(replace(W, n=64), TARGET, seed, 1e-6, "user")
    monkeypatch.setattr(Store, "neighbours", lambda self, w, target, digest, limit: (near,))
    b = bench(world(lambda s: Fate(compiles=Outcome.COMPILE_ERROR) if by_name(s) == seed else None))
    b.tune()
    assert [by_name(s) for s in b.pool.schedules].count(seed) == 1


class Given:
    """A strategy that proposes each start without opts in turn, and remembers what it is told of them."""

    def __init__(self, task):
        self.left, self.seconds = [task.space.candidate(s) for s in task.space.starts if s.opts == ()], {}

    def propose(self, count):
        batch, self.left = self.left[:2], self.left[2:]
        return batch

    def observe(self, candidate, seconds):
        self.seconds[candidate.schedule] = seconds


def test_a_strategy_decides_what_is_tried_and_when_the_search_is_over(bench):
    made = []
    fates = world(lambda s: None if s.params and s.variant == "dequant" else Fate(seeds=0))
    b = bench(fates)
    b.tuner = Tuner(b.store, b.runner, b.pool, QUICK, strategy=lambda task: made.append(Given(task)) or made[0])
    b.tune()
    tried = b.pool.schedules[len(HEURISTIC) + 1 :]
    assert set(tried) <= set(made[0].seconds)
    assert len(tried) > 4
    for schedule in tried:
        assert made[0].seconds[schedule] == (1e-3 if schedule.variant == "dequant" else None)


def test_a_real_workload_on_a_real_device(tmp_path):
    w, run = Workload("linear", "Q8_0", 64, 64), replace(RUN, budget_seconds=3.0, beam_width=2)
    store = Store.open(tmp_path / "store")
    with Runner(cpu()) as runner, CompilePool(runner.describe().renderer, 2) as pool:
        tuner = Tuner(store, runner, pool, run, heuristic=True)
        result = tuner.tune(w)
    assert result.status in ("tuned", "baseline wins")
    assert result.error < 1e-5
    assert result.tried >= len(HEURISTIC) + 1
    assert 0 < result.seconds <= result.heuristic_seconds
    (winner,) = store.finals()
    assert winner.row.measurement.schedule == result.schedule
