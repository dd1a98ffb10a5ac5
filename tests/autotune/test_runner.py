"""The runner on a real CPU device: right and wrong programs, and every fault that must cost no more than a respawn."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import psutil
import pytest
from support.cpu_device import cpu
from support.faults import fault_program
from support.interrupts import sigint
from tinygrad.uop.ops import Ops, UOp

from autotune.tinygrad_api.lower import compile_program
from autotune.trial.child import Child
from autotune.trial.compiler import CompilePool, Job
from autotune.trial.runner import PrepareError, Runner, RunnerError
from db.records import Opt, Outcome, Schedule, Workload
from kernels import backends, build
from kernels.devices import Choice
from kernels.serve import defaults
from kernels.tinygrad.facts import given_cache_nbytes

MiB = 1 << 20
W = Workload("linear", "Q4_0", 512, 512)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def choice():
    choice = cpu()
    with pytest.MonkeyPatch.context() as patch:
        if choice.cc is not None:
            patch.setenv("CC", choice.cc)
        yield choice


@pytest.fixture(scope="module")
def runner(choice):
    with Runner(choice) as runner:
        runner.prepare(W)
        yield runner


@pytest.fixture(scope="module")
def renderer(runner):
    return runner.describe().renderer


@pytest.fixture(scope="module")
def good(renderer):
    return compile_program(build(W, defaults.untuned(W), renderer), renderer)


@pytest.fixture(scope="module")
def fault(good, renderer):
    return lambda name: fault_program(good, name, W.m * W.n, renderer)


def test_describe_names_what_every_figure_needs(runner, choice):
    info = runner.describe()
    assert choice.device.startswith(info.target.backend.split(":")[0])
    assert info.target.arch
    assert info.clock in (backends.HOST_CLOCK, backends.EXECUTOR_CLOCK)
    assert dict(info.versions)["tinygrad"].startswith("0.14")
    assert dict(info.versions)["driver"]


def test_a_right_program_is_right_on_two_seeds_and_takes_time(runner, good):
    verdict = runner.validate(good, TOLERANCE, seeds=2)
    assert verdict.outcome is Outcome.OK
    assert 0 < verdict.error < TOLERANCE
    timing = runner.measure(good, 7)
    assert timing.outcome is Outcome.OK
    assert len(timing.samples) == 7
    assert all(0 < s < 0.1 for s in timing.samples)


@pytest.mark.parametrize(
    ("format", "n", "k", "m", "x_dtype", "out_dtype"),
    [
        ("Q8_0", 1, 32, 1, "float32", "float32"),
        pytest.param("Q6_K", 1025, 256, 2, "float32", "float32", marks=pytest.mark.slow),
        ("F32", 33, 7, 3, "float16", "float32"),
        ("Q4_1", 64, 96, 1, "float32", "float16"),
    ],
)
def test_odd_workloads(runner, renderer, format, n, k, m, x_dtype, out_dtype):
    w = Workload("linear", format, n, k, m, x_dtype, out_dtype)
    try:
        prepared = runner.prepare(w, seed=3)
        assert prepared.copies * prepared.weight_nbytes >= 4 * given_cache_nbytes() > 0 or prepared.copies == 4096
        program = compile_program(build(w, defaults.untuned(w), renderer), renderer)
        verdict = runner.validate(program, 1e-5 if out_dtype == "float32" else 1e-3, seeds=2)
        assert verdict.outcome is Outcome.OK, verdict
    finally:
        runner.prepare(W)


def test_inputs_are_made_while_the_caller_goes_on(runner, good):
    starts = runner.starts
    runner.begin(W)
    with pytest.raises(RunnerError, match="call prepare"):
        runner.validate(good, TOLERANCE)
    assert runner.prepare(W).copies > 0
    assert runner.validate(good, TOLERANCE).outcome is Outcome.OK
    assert runner.starts == starts


@pytest.mark.slow
def test_after_ctrl_c_while_inputs_are_asked_for_their_answer_is_not_read(runner, good, monkeypatch):
    send = Child.send

    def interrupted(self, message):
        send(self, message)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Child, "send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.begin(Workload("linear", "Q4_1", 64, 96))
    with pytest.raises(RunnerError, match="call prepare"):
        runner.validate(good, TOLERANCE)
    runner.prepare(W)
    assert runner.validate(good, TOLERANCE).outcome is Outcome.OK


def test_inputs_that_nobody_waited_for_are_dropped(runner, good):
    runner.begin(Workload("linear", "Q4_1", 64, 96))
    runner.begin(W)
    runner.prepare(W)
    assert runner.validate(good, TOLERANCE).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("write_past_end", "past the output's end"),
        ("write_nothing", "512 of 512 elements never written"),
        ("write_zeros", "relative error 1.00e+00"),
        ("write_nans", "NaN"),
    ],
)
def test_wrong_results_are_told_apart_and_cost_no_respawn(runner, fault, name, reason):
    starts = runner.starts
    verdict = runner.validate(fault(name), TOLERANCE)
    assert verdict.outcome is Outcome.WRONG_RESULT
    assert reason in verdict.reason
    assert runner.starts == starts


@pytest.mark.parametrize(
    ("call", "name", "outcome", "reason"),
    [
        ("validate", "hang", Outcome.TIMEOUT, "within 0.5 s"),
        ("measure", "segfault", Outcome.CRASH, "SIG"),
    ],
)
def test_a_fault_costs_one_respawn_and_the_next_call_works(runner, fault, good, call, name, outcome, reason):
    starts = runner.starts
    if call == "validate":
        result = runner.validate(fault(name), TOLERANCE, timeout_seconds=0.5)
    else:
        result = runner.measure(fault(name))
    assert result.outcome is outcome
    assert reason in result.reason
    assert runner.validate(good, TOLERANCE).outcome is Outcome.OK
    assert runner.starts == starts + 1


@pytest.mark.slow
def test_a_program_that_fills_memory_is_ended(choice, fault, good):
    baseline = 4 * 64 * MiB + 900 * MiB
    with Runner(choice, memory_limit_nbytes=baseline) as runner:
        runner.prepare(W)
        result = runner.measure(fault("fill_memory"), timeout_seconds=60)
        assert result.outcome is Outcome.CRASH
        assert "memory" in result.reason
        assert runner.measure(good).outcome is Outcome.OK


def test_a_program_that_the_driver_refuses_to_load(runner, good):
    empty = replace(good, key="empty", uop=good.uop.replace(src=(*good.uop.src[:3], UOp(Ops.BINARY, arg=b""))))
    starts = runner.starts
    assert runner.measure(empty).outcome in (Outcome.COMPILE_ERROR, Outcome.CRASH)
    assert runner.measure(good).outcome is Outcome.OK
    assert runner.starts <= starts + 1


def test_a_slow_program_is_given_up_early(runner, fault):
    timing = runner.measure(fault("dawdle"), 1000, stop_above_seconds=1e-6)
    assert timing.outcome is Outcome.SLOW
    assert len(timing.samples) == 1
    assert "stop above 1e-06 s" in timing.reason


def test_compare_pairs_samples_by_round(runner, good, fault):
    quick, slow = runner.compare([good, fault("dawdle")], 4)
    assert len(quick.samples) == len(slow.samples) == 4
    assert max(quick.samples) < min(slow.samples)
    faulty = runner.compare([good, fault("segfault")], 4)
    assert [t.outcome for t in faulty] == [Outcome.CRASH] * 2
    assert runner.chain(good, rounds=3).outcome is Outcome.OK


def test_copy_bandwidth_is_plausible_and_measured_once(runner):
    first = runner.copy_bandwidth()
    assert 1e8 < first < 1e14
    assert runner.copy_bandwidth() == first  # no two measurements are equal to the last bit


def test_a_call_costs_little_more_than_the_launches(runner, good):
    runner.measure(good, 1)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        runner.measure(good, 1)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.01


def test_programs_of_the_compile_pool_run(runner, renderer):
    jobs = [Job(rows, W, Schedule(*_variant(), (Opt("UPCAST", None, rows, "1"),))) for rows in (2, 4)]
    with CompilePool(renderer, 2) as pool:
        for result in pool.compile(jobs):
            assert result.outcome is Outcome.OK, result.reason
            assert runner.validate(result.program, TOLERANCE).outcome is Outcome.OK


def _variant():
    untuned = defaults.untuned(W)
    return untuned.variant, untuned.params


def test_misuse_is_refused(choice, good):
    with Runner(choice) as fresh:
        with pytest.raises(RunnerError, match="prepare"):
            fresh.validate(good, TOLERANCE)
        with pytest.raises(PrepareError, match="topk"):
            fresh.prepare(Workload("topk", "F32", 8, 8))
        with pytest.raises(RunnerError, match="prepare"):
            fresh.measure(good)
        fresh.prepare(W)
        with pytest.raises(ValueError, match="launches=0"):
            fresh.measure(good, 0)
        assert fresh.measure(good).outcome is Outcome.OK


def test_a_device_that_does_not_open_says_why():
    with (
        Runner(Choice("CPU:NOSUCH", "test")) as runner,
        pytest.raises(RunnerError, match=r"CPU:NOSUCH does not open: .*NOSUCH"),
    ):
        runner.describe()


def test_leaving_the_context_ends_the_child(choice):
    before = set(psutil.Process().children())
    with Runner(choice) as runner:
        runner.describe()
        (child,) = set(psutil.Process().children()) - before
    assert not child.is_running()


ORPHAN = """
import os, sys, threading
from support.faults import fault_program
from autotune.trial.child import Child
from autotune.trial.runner import Runner
from autotune.tinygrad_api.lower import compile_program
from db.records import Workload
from kernels import backends, build
from kernels.serve import defaults
from support.cpu_device import cpu
W = Workload("linear", "Q4_0", 512, 512)
with Runner(cpu()) as runner:
    runner.prepare(W)
    ren = runner.describe().renderer
    good = compile_program(build(W, defaults.untuned(W), ren), ren)
    print("hanging", flush=True)
    try:
        runner.measure(fault_program(good, "hang", 512, ren), timeout_seconds=600)
    except KeyboardInterrupt:
        pass
print("left", flush=True)
"""


@pytest.mark.parametrize(("how", "says"), [(signal.SIGKILL, ""), (signal.SIGINT, "left")])
@pytest.mark.slow
def test_a_hung_child_does_not_outlive_its_parent(tmp_path, how, says):
    script = tmp_path / "orphan.py"
    script.write_text(textwrap.dedent(ORPHAN))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path if p)}
    with sigint():
        parent = subprocess.Popen([sys.executable, str(script)], env=env, stdout=subprocess.PIPE, text=True)
    with parent, contextlib.ExitStack() as on_failure:
        on_failure.callback(parent.kill)
        assert parent.stdout.readline() == "hanging\n"
        time.sleep(0.2)
        (child,) = psutil.Process(parent.pid).children()
        assert child.cpu_percent(0.2) > 10
        os.kill(parent.pid, how)
        assert parent.stdout.read().strip() == says
    for _ in range(50):
        if not child.is_running() or child.status() == psutil.STATUS_ZOMBIE:  # where init does not reap
            return
        time.sleep(0.1)
    pytest.fail(f"{child} is still running")
