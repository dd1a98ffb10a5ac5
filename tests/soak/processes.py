"""Commands and other work in processes of their own, which are hit by signals."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autotune.cli import main

from .attack import HANG_SECONDS, BrokenError, Promise
from .verbs import came_through_project

Work = Callable[[], int | None]

ENDED = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2), signal.SIGHUP: (129, -1)}
"""Statuses of a command that a signal ended; below zero before it had begun or after it had ended, and where Ctrl-C
came in an `exec`: Python remembers that, and ends itself by the signal after all is done."""


@dataclass
class Forked:
    """A child made by fork; what it writes to stderr goes to `log`."""

    pid: int
    log: Path

    def hit(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, what: str, seconds: float = HANG_SECONDS) -> int:
        """Its status, that of a signal below zero. Raises BrokenError where it does not end."""
        deadline = time.monotonic() + seconds
        while (found := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGUSR1)  # faulthandler writes where it is
                time.sleep(0.3)
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise BrokenError(Promise.HANG, what, self.said)
            time.sleep(0.002)
        return os.waitstatus_to_exitcode(found[1])

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def fork(work: Work, log: Path) -> Forked:
    """Runs work in a child; its status is what the work returns."""
    pid = os.fork()
    if pid:
        return Forked(pid, log)
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = work() or 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the end of a process
        if isinstance(error, KeyboardInterrupt) and not came_through_project(error):
            status = 130  # before the work had begun
        else:
            os.write(2, traceback.format_exc().encode())
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                continue
        os._exit(status)


def command(*arguments: str) -> Work:
    """A command of the command line, for `fork`."""
    return lambda: main(list(arguments), prog_name="autotune")
