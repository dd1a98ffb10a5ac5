"""One server under several threads and in forked children: every answer is made once, and nobody waits for ever."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from contextlib import closing

import pytest
from support.kernel_runs import device
from support.store_rows import fact, opened

from db.lookup import Lookup
from db.records import Schedule, Target, Workload
from kernels.ops.registry import kernel_digest
from kernels.serve import sink
from kernels.serve.server import Server, resolve, serving, shared, use

W, OTHER = Workload("linear", "Q8_0", 64, 64), Workload("linear", "Q8_0", 96, 64)


class Counting(Lookup):
    """A store without rows, which counts questions."""

    asked = 0

    def exact(self, *args):
        self.asked += 1


def test_threads_that_ask_for_one_workload_have_it_built_once(monkeypatch):
    name, built, start = device().name, [], threading.Barrier(8)
    monkeypatch.setattr(sink, "build", lambda *args, build=sink.build: built.append(args) or build(*args))
    lookup, answers = Counting(), []
    server = Server(lookup, "exact")

    def ask():
        start.wait()
        answers.append((server.serve(W, name), server.device(name), server.program(W, name)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(a is b for answer in answers for a, b in zip(answer, answers[0], strict=True))
    assert lookup.asked == 1
    asked = len(built)
    server.serve(W, name)
    assert len(built) == asked <= 2  # whether the schedule applies, and the kernel


def test_what_is_served_is_what_resolve_says():
    server = Server(mode="off")
    served, found = server.serve(W, device().name), server.resolve(W, server.device(device().name).target)
    assert (served.schedule, served.step) == (found.schedule, found.step)
    assert served.sink == sink.build(W, found.schedule, device().renderer)


def test_a_store_that_is_locked_at_the_first_question_is_asked_again(tmp_path, monkeypatch):
    target = Target("CPU", "any", "any", 2)
    found = Schedule("loops", (("rows", 1),), ())
    final = fact(workload=W, target=target, schedule=found, kernel_digest=kernel_digest(W))
    opened(tmp_path / "db", final)
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("BEGIN EXCLUSIVE")
        server = Server(Lookup(tmp_path / "db"), "exact")
        first = server.resolve(W, target)
        assert first.step != "user"
        assert server.resolve(W, target) is first  # it is not asked every time
    monkeypatch.setattr("db.readers._LOCKED_SECONDS", 0)
    assert (server.resolve(W, target).step, server.resolve(W, target).schedule) == ("user", found)


def test_a_server_is_handed_in_for_a_while():
    lookup, before = Counting(), shared()
    target = before.device(device().name).target
    with serving(Server(lookup, "exact")):
        resolve(W, target)
        resolve(W, target)
    assert lookup.asked == 1
    assert shared() is before
    assert use(before) is before


def run(program: str, *arguments: str) -> str:
    """What a program prints in a process of its own. It may fork: threads of pytest do not disturb it."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "DEV": device().name}
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_CHILD = """
    import os, signal, sys, threading
    from db.lookup import Lookup
    from db.records import Target, Workload
    from kernels.serve.server import Server
    w, other, another = (Workload("linear", "Q8_0", n, 64) for n in (64, 96, 128))
    target = Target("CPU", "x86_64", "somewhere", 2)

    def in_child(question):
        child = os.fork()
        if not child:
            signal.alarm(60)
            os._exit(0 if question() else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_does_not_wait_for_a_thread_that_only_its_parent_has():
    program = """
    class Slow(Lookup):
        def exact(self, workload, target, kernel_digest):
            if workload == other:
                inside.set()
                leave.wait()

    inside, leave = threading.Event(), threading.Event()
    server = Server(Slow(), "exact")
    known = server.resolve(w, target)
    thread = threading.Thread(target=server.resolve, args=(other, target))
    thread.start()
    inside.wait()
    print(in_child(lambda: server.resolve(w, target) is known and server.resolve(another, target).step == "default"))
    leave.set()
    thread.join()
    print(server.resolve(other, target).step)
    """
    assert run(textwrap.dedent(_CHILD) + textwrap.dedent(program)).split() == ["0", "default"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_opens_the_store_itself_while_a_thread_of_its_parent_reads_it(tmp_path):
    """Where the lock of a reader is held when the process forks."""
    from support.store_rows import fact, opened

    opened(tmp_path / "db", fact())
    program = """
    import sqlite3
    connect, opened_by, inside, leave = sqlite3.connect, [], threading.Event(), threading.Event()

    class Slow(sqlite3.Connection):
        def execute(self, sql, *rest):
            if threading.current_thread().name == "slow" and "SELECT" in sql.upper():
                inside.set()
                leave.wait()
            return super().execute(sql, *rest)

    def opening(*args, **options):
        opened_by.append(os.getpid())
        return connect(*args, **options, factory=Slow)

    sqlite3.connect = opening
    lookup = Lookup(sys.argv[1], sys.argv[1])
    server = Server(lookup, "exact")
    server.resolve(w, target)
    assert set(opened_by) == {os.getpid()}
    before = len(opened_by)
    thread = threading.Thread(target=lookup.exact, args=(other, target, "0" * 64), name="slow")
    thread.start()
    inside.wait()
    print(in_child(lambda: server.resolve(another, target) and set(opened_by[before:]) == {os.getpid()}))
    leave.set()
    thread.join()
    """
    assert run(textwrap.dedent(_CHILD) + textwrap.dedent(program), str(tmp_path / "db")) == "0"
