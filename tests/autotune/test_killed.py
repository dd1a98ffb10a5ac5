"""Children that something else kills or stops: they are replaced, and a candidate is blamed the second time only."""

import os
import signal
import threading
import time

import psutil
import pytest
from support.cpu_device import cpu
from support.faults import N_OF, fault_program, faulty_renderer

from autotune.tinygrad_api.lower import compile_program
from autotune.trial import child
from autotune.trial.child import Child, ChildFault
from autotune.trial.compiler import CompilePool, CompilePoolError, Job
from autotune.trial.runner import Runner
from db.records import Outcome, Workload
from kernels import build
from kernels.serve import defaults

W = Workload("linear", "Q4_0", 96, 64)
UNTUNED = defaults.untuned(W)


def job(n=96):
    return Job(n, Workload("linear", "Q4_0", n, 64), UNTUNED)


def children():
    return {p.pid for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE}


def test_a_worker_that_is_killed_while_it_starts_is_replaced():
    before = children()
    with CompilePool(faulty_renderer(), 2) as pool:
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
        assert [done.outcome for done in pool.compile([job()])] == [Outcome.OK]


def test_workers_that_never_start_are_an_error_that_says_why(monkeypatch):
    monkeypatch.setattr("autotune.trial.compiler._WORKER", "autotune.no_such_module")
    with CompilePool(faulty_renderer(), 2) as pool, pytest.raises(CompilePoolError, match="no_such_module"):
        list(pool.compile([job()]))


@pytest.mark.slow
def test_a_job_is_tried_again_after_its_worker_was_killed_and_blamed_after_the_second_time(tmp_path, monkeypatch):
    monkeypatch.setenv("KILLED_ONCE", str(tmp_path / "killed"))
    with CompilePool(faulty_renderer(), 2) as pool:
        done = {c.key: c for c in pool.compile([job(N_OF["killed_once"]), job(N_OF["killed"]), job()])}
    assert done[N_OF["killed_once"]].outcome is Outcome.OK
    assert done[N_OF["killed"]].outcome is Outcome.CRASH
    assert "killed from outside, twice" in done[N_OF["killed"]].reason
    assert done[96].outcome is Outcome.OK


@pytest.fixture(scope="module")
def runner():
    with Runner(cpu()) as runner:
        runner.prepare(W)
        yield runner


def fault(name, runner):
    ren = runner.describe().renderer
    return fault_program(compile_program(build(W, UNTUNED, ren), ren), name, W.n, ren)


@pytest.fixture(scope="module")
def slow(runner):
    """A program of which a launch takes a tenth of a second."""
    return fault("dawdle", runner)


def kill_a_child_at_work():
    while True:
        for process in psutil.Process().children():
            if process.cpu_times().user > 0.1 and process.status() == psutil.STATUS_RUNNING:
                return process.kill()
        time.sleep(0.05)


def test_a_candidate_is_not_blamed_for_a_runner_that_was_killed_once(runner, slow):
    starts = runner.starts
    killer = threading.Thread(target=kill_a_child_at_work)
    killer.start()
    assert runner.measure(slow, 10).outcome is Outcome.OK
    killer.join()
    assert runner.starts == starts + 1


@pytest.mark.slow
def test_a_candidate_that_is_killed_again_is_to_blame(runner, slow):
    starts = runner.starts
    timing = runner.measure(fault("killed", runner))
    assert timing.outcome is Outcome.CRASH
    assert "SIGKILL, twice" in timing.reason
    assert runner.measure(slow, 1).outcome is Outcome.OK
    assert runner.starts == starts + 2


def test_a_child_that_is_stopped_blocks_nobody_who_writes_to_it(monkeypatch):
    monkeypatch.setattr(child, "_MESSAGE_SECONDS", 1)
    stopped = Child("autotune.trial.compiler_child")
    os.kill(stopped.pid, signal.SIGSTOP)
    with pytest.raises(ChildFault, match="stopped for 1 s") as fault:
        stopped.send(bytes(1 << 22))
    assert fault.value.outcome is Outcome.TIMEOUT
    assert not psutil.pid_exists(stopped.pid)
