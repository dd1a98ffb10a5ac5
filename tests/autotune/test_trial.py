"""The path of one schedule: what each stage passes on, what a comparison leaves out, and what is stored."""

from support.fake_tuning import TARGET, FakeClock, FakePool, FakeRunner, Fate

from autotune.trial.pipeline import BASELINE_UOPS, Pipeline
from db.records import Outcome, Schedule, Stage, Workload
from kernels.ops.registry import kernel_digest

W = Workload("linear", "Q8_0", 48, 64)
A, B, C = (Schedule(variant, (), ()) for variant in ("dequant", "factored", "warp"))


def pipeline(fates, **runner):
    def world(schedule):
        return fates.get(schedule, Fate())

    device = FakeRunner(world, **runner)
    return Pipeline(device, FakePool(world, FakeClock()), W), device


def measured(path, *schedules):
    return [path.measure(path.validate(t)) for t in path.compile(schedules)]


def test_a_schedule_that_works_becomes_a_row_with_all_that_was_found():
    path, _ = pipeline({A: Fate(2e-3)})
    (trial,) = measured(path, A)
    row = trial.measurement(Stage.PROBE)
    assert (row.workload, row.target, row.schedule, row.kernel_digest) == (W, TARGET, A, kernel_digest(W))
    assert (row.outcome, row.samples, row.error, row.reason, row.clock) == (
        Outcome.OK,
        (2e-3,) * 3,
        1e-7,
        "",
        "event",
    )
    assert 0 < row.error < row.tolerance
    assert trial.measurement(Stage.VERIFY).clock == ""


def test_a_failed_stage_is_the_last():
    path, device = pipeline({A: Fate(compiles=Outcome.TIMEOUT), B: Fate(seeds=0)})
    broken, wrong = measured(path, A, B)
    assert device.calls == ["validate"]
    assert (broken.outcome, broken.reason, broken.samples) == (Outcome.TIMEOUT, "made up timeout", ())
    assert (wrong.outcome, wrong.reason, wrong.error, wrong.samples) == (
        Outcome.WRONG_RESULT,
        "made up error",
        0.5,
        (),
    )
    assert not broken.timed
    assert not wrong.timed
    assert path.compare([broken, wrong]).compared == ()


def test_a_slow_schedule_is_timed_and_still_takes_part():
    path, _ = pipeline({A: Fate(1e-3), B: Fate(9e-3)})
    fast, slow = path.compile([A, B])
    slow = path.measure(path.validate(slow), stop_above_seconds=2e-3)
    assert (slow.outcome, slow.timed, len(slow.samples)) == (Outcome.SLOW, True, 1)
    compared = path.compare([path.measure(path.validate(fast)), slow]).compared
    assert [t.outcome for t in compared] == [Outcome.OK] * 2
    assert len(compared[0].samples) == len(compared[1].samples) >= 20


def test_a_comparison_goes_on_without_what_faults():
    path, _ = pipeline({B: Fate(fault=Outcome.CRASH)})
    found = path.compare(measured(path, A, B, C))
    assert [t.schedule for t in found.compared] == [A, C]
    assert [(t.schedule, t.outcome, t.error, t.samples) for t in found.faulted] == [(B, Outcome.CRASH, None, ())]


def test_a_comparison_that_never_works_leaves_out_the_slowest_first():
    path, device = pipeline({B: Fate(5e-3)}, compares=Outcome.TIMEOUT)
    found = path.compare(measured(path, A, B, C))
    assert found.compared == found.faulted == ()
    assert device.calls.count("compare") == 3


def test_a_baseline_may_take_longer_to_compile():
    pool = FakePool(lambda schedule: Fate(), FakeClock())
    path = Pipeline(FakeRunner(pool.world), pool, W)
    list(path.compile([A], patient=[A]))
    list(path.compile([B]))
    assert [job.max_uops for job in pool.compiled] == [BASELINE_UOPS, None]
