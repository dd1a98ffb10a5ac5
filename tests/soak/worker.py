"""A child process that runs cases, and is watched: it may hang, die, and start processes of its own."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .attack import Attack, BrokenError, Case, Promise, SkippedError, injected, seeded
from .verbs import told, where_of

MEMORY_NBYTES = 8 << 30  # of addresses; what takes more is stopped by a MemoryError


class Worker:
    """A child process that runs cases of one attack."""

    def __init__(self, attack: Attack, seed: int, root: Path) -> None:
        self.attack, self.done = attack, 0
        self.log = root / f"stderr-{attack.name}"
        self.scratch = root / f"case-{attack.name}"
        self.did = root / f"did-{attack.name}"
        ours, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            quietly(lambda: self._serve(seed, root / attack.name, theirs), self.log)
        self.group = self.pid  # of all that its cases start
        theirs.close()
        self.connection: Connection[Any, Any] = ours

    def run(self, number: int) -> dict[str, Any] | None:
        """What the case found. Raises BrokenError where it hangs or dies."""
        self.done += 1
        self.did.write_text("")
        try:
            self.connection.send(number)
            if self.connection.poll(self.attack.limit_seconds):
                return dict(self.connection.recv())
        except (EOFError, OSError):
            _, status = os.waitpid(self.pid, 0)
            self.pid = 0
            how = f"signal {signal.Signals(-code).name}" if (code := os.waitstatus_to_exitcode(status)) < 0 else code
            raise BrokenError(Promise.DEATH, f"the process died: {how}", self._said()) from None
        os.kill(self.pid, signal.SIGUSR1)  # faulthandler writes where it hangs
        time.sleep(0.2)
        said = self._said()
        places = [line.strip() for line in said.splitlines() if "File" in line and "/tests/soak/" not in line]
        ours = [p for p in places if any(f"/{part}/" in p for part in ("autotune", "kernels", "db"))]
        raise BrokenError(Promise.HANG, f"{(ours or places or ['?'])[0].rpartition('/')[2]}", said)

    def close(self) -> None:
        self.connection.close()
        end_group(self.group)
        if self.pid:
            os.waitpid(self.pid, 0)
        removed(self.scratch)

    def _serve(self, seed: int, shared: Path, connection: Connection[Any, Any]) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_NBYTES, hard))
        while True:
            number = connection.recv()
            removed(self.scratch)
            self.scratch.mkdir()
            os.chdir(self.scratch)
            case = Case(seeded(seed, self.attack.name, number), self.scratch, shared, self.did)
            injected()  # of what came before
            outcome = _outcome(self.attack, case)
            connection.send(outcome | {"injected": injected()})

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


def quietly(work: Callable[[], None], log: Path) -> None:
    """Does the work of a child process, in a process group of its own, and ends it; what it prints goes to `log`."""
    status = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for number, stream in ((null, 0), (file, 1), (file, 2)):
            os.dup2(number, stream)
        faulthandler.enable(sys.__stderr__)
        faulthandler.register(signal.SIGUSR1, sys.__stderr__, all_threads=True)
        work()
        status = 0
    except BaseException as error:  # noqa: BLE001 - the end of a process
        os.write(2, told(error).encode(errors="replace"))
    finally:
        os._exit(status)


def _outcome(attack: Attack, case: Case) -> dict[str, Any]:
    try:
        attack.run(case)
    except SkippedError as skipped:
        return {"skipped": str(skipped)}
    except BrokenError as broken:
        return {"promise": broken.promise, "where": broken.where, "detail": broken.detail}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault
        return {"promise": Promise.TRACEBACK, "where": where_of(error), "detail": told(error)}
    return {}


def end_group(pid: int) -> None:
    """A child that has only begun may not lead its group yet."""
    for end in (os.killpg, os.kill):
        with suppress(ProcessLookupError):
            end(pid, signal.SIGKILL)


def removed(folder: Path) -> None:
    """Removes a folder with whatever a case left there, a mounted disk included."""
    if (disk := folder / "disk").is_mount():
        subprocess.run(["umount", "-l", str(disk)], check=False)
    shutil.rmtree(folder, ignore_errors=True)
