"""A child process and the pipe to it: start, send, wait within limits of time and memory, say how it died, kill.

What is sent is pickled, which is safe here: both ends are our own process tree, and the pipe has no name that another
process could open. What the messages mean is the business of `runner` and `compiler`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import psutil

from db.errors import AutotuneError
from db.records import Outcome
from kernels.lifeline import LIFELINE

_ERROR = re.compile(r"[\w.]*(Error|Exception)\b")
# how often memory is looked at while waiting; an answer ends the wait at once
POLL_SECONDS = 0.1
_GRACE_SECONDS = 1.0
# within a message: a child that was stopped neither reads nor writes on
_MESSAGE_SECONDS = 30
# what nothing that runs in the child raises: another process sent it, or the system for want of memory
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
# The child gets our sys.path, and no path of its own: -P keeps the working directory out. `-m` or multiprocessing's
# spawn would import the working directory's modules or run the user's __main__ again.
_BOOT = f"""{LIFELINE}
import importlib, json, sys
path, module, fd = json.loads(sys.argv[1])
sys.path[:] = path
importlib.import_module("autotune.trial.child").attend(importlib.import_module(module).main, fd)
"""


class ChildFault(AutotuneError, RuntimeError):
    """The child hung (TIMEOUT), died or outgrew its memory limit (CRASH). It is gone when this is raised.

    from_outside: it was killed, and what it did need not be the reason."""

    def __init__(self, outcome: Outcome, reason: str, *, from_outside: bool = False):
        super().__init__(reason)
        self.outcome, self.from_outside = outcome, from_outside


class Child:
    """A running child; `module` must have `main(connection)`. Leads a process group of its own, so that Ctrl-C does
    not reach it and killing it takes its compilers along."""

    def __init__(self, module: str, *, env: Mapping[str, str] | None = None, memory_limit_nbytes: int | None = None):
        self.memory_limit_nbytes = memory_limit_nbytes
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        ours, theirs = socket.socketpair()
        for limit in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, limit, struct.pack("@ll", _MESSAGE_SECONDS, 0))
        with theirs:
            boot = json.dumps([[os.path.abspath(p) for p in sys.path], module, theirs.fileno()])
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, boot],
                stdin=subprocess.PIPE,  # the lifeline
                stdout=self._log,
                stderr=self._log,
                env={**os.environ, **(env or {})},
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self.connection: Connection[Any, Any] = Connection(ours.detach())
        self.pid = self._process.pid

    def send(self, message: object) -> None:
        """Raises ChildFault if the child is gone, or does not read."""
        try:
            self.connection.send(message)
        except BlockingIOError:
            raise self._stopped() from None
        except OSError:
            raise self.died() from None

    def receive(self, timeout_seconds: float) -> Any:
        """The child's next message. Raises ChildFault; anything that interrupts the wait ends the child too, since
        its late answer would be taken for the next one's."""
        deadline = time.monotonic() + timeout_seconds
        try:
            while not self.connection.poll(max(0.0, min(POLL_SECONDS, deadline - time.monotonic()))):
                self.check(deadline, timeout_seconds)
            return self.connection.recv()
        except BlockingIOError:
            raise self._stopped() from None
        except (EOFError, OSError):
            raise self.died() from None
        except BaseException:
            self.kill()
            raise

    def check(self, deadline: float, timeout_seconds: float) -> None:
        """Kills a child that is late or too big, and raises ChildFault."""
        if time.monotonic() >= deadline:
            self.kill()
            raise ChildFault(Outcome.TIMEOUT, f"no answer within {timeout_seconds:g} s")
        limit, used = self.memory_limit_nbytes, self.rss_nbytes()
        if limit is not None and used > limit:
            self.kill()
            raise ChildFault(Outcome.CRASH, f"memory: {used >> 20} MiB in use, the limit is {limit >> 20} MiB")

    def _stopped(self) -> ChildFault:
        self.kill()
        return ChildFault(Outcome.TIMEOUT, f"stopped for {_MESSAGE_SECONDS} s in the middle of a message")

    def rss_nbytes(self) -> int:
        """Resident memory; 0 if the child is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    def died(self) -> ChildFault:
        """How the child ended, after its end of the pipe has closed."""
        try:
            status = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return ChildFault(Outcome.CRASH, "closed its pipe and lived on")
        how = f"exit status {status}" if status >= 0 else _signal_name(-status)
        tail = self._tail()
        self.kill()
        outside = -status in _FROM_OUTSIDE
        return ChildFault(Outcome.CRASH, f"{how}: {tail}" if tail else how, from_outside=outside)

    def _tail(self) -> str:
        """The last line that the child or a driver in it printed, of those that name an error if any does."""
        if self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 4096, max(0, size - 4096)).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        named = [line for line in lines if _ERROR.match(line)]
        return (named or lines)[-1][:300] if lines else ""

    def close(self) -> None:
        """Lets an idle child end by itself, and kills one that doesn't."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Ends the child and what it started. May be called again."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self.connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._log.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def attend(main: Any, fd: int) -> None:
    """In the child: run `main(connection)` until the parent closes the pipe or ends."""
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crashing candidate is expected, its core file is not
    os.set_inheritable(fd, False)
    sys.excepthook = _print_and_exit
    with suppress(EOFError, ConnectionResetError, BrokenPipeError):
        main(Connection(fd))
    os._exit(0)


def answer_requests(
    connection: Connection[Any, Any],
    bench: object,
    caught: tuple[type[Exception], ...],
    refusal: Callable[[Exception], object],
) -> None:
    """In the child: answers each request, which names a method of `bench`, until the pipe closes. An error of `caught`
    is answered with its `refusal`; any other ends the child."""
    while True:
        request = connection.recv()
        answer: object
        try:
            answer = getattr(bench, request.verb)(**request.arguments)
        except caught as e:
            answer = refusal(e)
        connection.send(answer)


def _print_and_exit(*error: Any) -> None:
    """No atexit handlers: a device that a candidate broke must not hang the exit."""
    sys.__excepthook__(*error)
    sys.stderr.flush()
    os._exit(1)
