"""Tables of launches: every slice runs once, launches in their order, whatever the threads do meanwhile."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from support.bare_machine import ROOT
from support.c_functions import address
from support.interrupts import sigint

from kernels.host import executor
from kernels.host.executor import Given, Launch, LaunchError, Table, copy, offsets, set_threads

COUNT = 60
ALL_THREADS = (1, 2, 5)


@pytest.fixture(autouse=True)
def default_threads():
    yield
    set_threads(None)


def mixing(a, b, slices=6):
    """Launches there and back, 10 times."""
    return [
        Launch(address("mix"), (to.ctypes.data, of.ctypes.data, COUNT, 0, slices), slices, 3, frozenset({2, 3, 4}))
        for to, of in [(b, a), (a, b)] * 10
    ]


def mixed(start, rounds=20):
    found = start.copy()
    for _ in range(rounds):
        found = 3 * found + found[::-1]
    return found


def some(seed=0):
    return np.random.default_rng(seed).integers(0, 1 << 32, COUNT, dtype=np.uint32)


@pytest.mark.parametrize("threads", ALL_THREADS)
@pytest.mark.parametrize("slices", [1, 2, 6, 60, 4095])
def test_launches_follow_each_other(threads, slices):
    set_threads(threads)
    start = some()
    a, b = start.copy(), np.zeros_like(start)
    table = Table(mixing(a, b, slices))
    assert table.run() > 0
    np.testing.assert_array_equal(a, mixed(start))
    table.run(timed=True)
    np.testing.assert_array_equal(a, mixed(start, 40))
    assert len(table.seconds_each) == 20
    assert (table.seconds_each > 0).all()


def test_a_call_gives_values():
    a, b, c = some(1), some(2), np.zeros(COUNT, np.uint32)
    half = 2 * COUNT
    there = Table([copy(c.ctypes.data, Given(1), half), copy(c.ctypes.data + half, Given(0, half), half)], 2)
    for first, second in [(a, b), (b, a)]:
        there.run(second.ctypes.data, first.ctypes.data)
        np.testing.assert_array_equal(c, np.concatenate([first[: COUNT // 2], second[COUNT // 2 :]]))


def test_many_arguments_of_both_sizes():
    found = np.zeros(1, np.int64)
    digits = (1, 2, Given(0), 4, 5, 6, 7, 8, -9, Given(1), 1)
    table = Table([Launch(address("digits"), (found.ctypes.data, *digits), integers=frozenset({9, 10}))], 2)
    table.run(3, -1 % 2**64)
    assert found[0] == 12345678_000 - 900 - 10 + 1


def test_where_arguments_are():
    assert offsets([8] * 9 + [4, 4, 8], packed=False) == [8 * i for i in range(12)]
    assert offsets([4] * 8 + [8, 4, 4, 4, 8], packed=True) == [*(8 * i for i in range(8)), 64, 72, 76, 80, 88]


def test_threads_go_on_claiming_while_one_is_busy():
    """A schedule with more slices than threads needs it, and a thread that has lost its core."""
    ended = np.zeros(1, np.int32)
    set_threads(2)
    Table([Launch(address("last"), (ended.ctypes.data, 0, 7), 8, 1, frozenset({1, 2}))]).run()
    assert ended[0] == 7


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be kept on a core here")
def test_threads_that_share_a_core_with_another_process_make_progress():
    here = os.sched_getaffinity(0)
    core = {min(here)}
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            os.sched_setaffinity(other.pid, core)
            os.sched_setaffinity(0, core)
            set_threads(3)
            start = some()
            a, b = start.copy(), np.zeros_like(start)
            table = Table(mixing(a, b) * 5)
            table.run()
            np.testing.assert_array_equal(a, mixed(start, 100))
        finally:
            os.sched_setaffinity(0, here)
            other.kill()


def test_idle_threads_sleep():
    set_threads(5)
    a, b = some(), some()
    Table(mixing(a, b)).run()
    time.sleep(0.02)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.05


def test_python_threads_take_turns():
    set_threads(2)
    wrong = []

    def work(seed):
        start = some(seed)
        a, b = start.copy(), np.zeros_like(start)
        table = Table(mixing(a, b))
        for rounds in range(20, 1020, 20):
            table.run()
            if (a != mixed(start, rounds)).any():
                wrong.append(seed)
                return

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_has_threads_of_its_own():
    set_threads(3)
    start = some()
    a, b = start.copy(), np.zeros_like(start)
    table = Table(mixing(a, b))
    table.run()
    for rounds in (40, 60):
        if (child := os.fork()) == 0:
            try:
                table.run()
                os._exit(int((a != mixed(start, rounds)).any()))
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        table.run()
        np.testing.assert_array_equal(a, mixed(start, rounds))


def test_a_child_that_is_forked_during_a_call_can_run():
    """What another thread was about is not there in the child."""
    set_threads(2)
    a, b, count = some(), some(), np.zeros(1, np.int32)
    long, short = Table([Launch(address("nap"), (count.ctypes.data,))] * 50), Table(mixing(a, b))
    other = threading.Thread(target=long.run)
    other.start()
    while not count[0]:
        time.sleep(0.001)
    if (child := os.fork()) == 0:
        try:
            expected = mixed(a)
            short.run()
            os._exit(int((a != expected).any()))
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    other.join()
    assert count[0] == 50


def test_an_interrupt_comes_between_two_launches():
    set_threads(2)
    a, b, count = some(), some(), np.zeros(1, np.int32)
    long = Table([Launch(address("nap"), (count.ctypes.data,))] * 5000)  # ten seconds and more
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            long.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    seen = count[0]
    assert 0 < seen < 5000
    expected = mixed(a)
    Table(mixing(a, b)).run()
    np.testing.assert_array_equal(a, expected)
    assert count[0] == seen


def test_a_signal_handler_may_run_a_table_during_a_call():
    set_threads(2)
    start, count = some(), np.zeros(1, np.int32)
    a, b = start.copy(), np.zeros_like(start)
    table, long = Table(mixing(a, b)), Table([Launch(address("nap"), (count.ctypes.data,), 2)] * 50)
    before = signal.signal(signal.SIGALRM, lambda *_: table.run())
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    try:
        long.run()
    finally:
        signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(a, mixed(start))
    assert count[0] >= 50


def test_a_process_ends_with_idle_threads_and_during_a_call():
    source = """
import threading, time
import numpy as np
from kernels.host.executor import Launch, Table, set_threads
from support.c_functions import address
set_threads(4)
count = np.zeros(1, np.int32)
nap = Launch(address("nap"), (count.ctypes.data,))
Table([nap]).run()
threading.Thread(target=Table([nap] * 100000).run, daemon=True).start()
while count[0] < 3: time.sleep(0.001)
print("done")
"""
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    with sigint():
        done = subprocess.run([sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.skipif(sys.platform == "darwin", reason="another structure")
@pytest.mark.parametrize("flush", [False, True])
def test_all_threads_round_and_treat_denormals_as_the_caller_s(flush):
    """A library that was compiled for fast arithmetic may have turned denormals off in the caller."""
    libm = ctypes.CDLL("libm.so.6")
    environment = (ctypes.c_uint32 * 16)()
    libm.fegetenv(environment)
    saved = bytes(environment)
    x, y = np.full(64, 1e-30, np.float32), np.ones(64, np.float32)
    nap = np.zeros(1, np.int32)
    slow = Launch(address("nap"), (nap.ctypes.data,), 8)
    set_threads(4)
    Table([slow]).run()  # the threads are there by now
    try:
        if flush:
            at = 7 if os.uname().machine == "x86_64" else 0  # MXCSR, or FPCR
            environment[at] |= 0x8040 if at else 1 << 24
            libm.fesetenv(environment)
        for _ in range(5):
            Table([slow, Launch(address("divide"), (y.ctypes.data, x.ctypes.data, 0), 64, 2, frozenset({2}))]).run()
    finally:
        environment[:] = (ctypes.c_uint32 * 16).from_buffer_copy(saved)
        libm.fesetenv(environment)
    assert len(set(y.tolist())) == 1
    assert (y[0] == 0) == flush


@pytest.mark.parametrize(
    ("launch", "said"),
    [
        (Launch(1, (0,) * 65), "65 arguments, expected at most 64"),
        (Launch(1, (), 0), "0 slices, expected 1 to 4095"),
        (Launch(1, (), 4096), "4096 slices, expected 1 to 4095"),
        (Launch(1, (Given(1),)), "is given value 1 of 1"),
    ],
)
def test_launches_that_cannot_be_run(launch, said):
    with pytest.raises(LaunchError, match=said):
        Table([launch], 1)


def test_without_an_executor_there_is_no_table(monkeypatch):
    monkeypatch.setattr(executor, "library", lambda: None)
    assert not executor.available()
    with pytest.raises(LaunchError, match="takes a C compiler"):
        Table([])


def test_an_empty_table():
    assert Table([]).run() == 0
