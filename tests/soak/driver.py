"""Runs cases of attacks in child processes, watches them, and counts what they found.

A child takes one case after the other, so that a device is opened once for many; it is replaced after BATCH cases, and
when it dies or hangs. A case depends on its seed, attack and number alone.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .attack import Attack, BrokenError, Case, Promise, SkippedError, seeded
from .verbs import told, where_of

BATCH = 50
PREPARE_SECONDS = 120.0
MEMORY_NBYTES = 8 << 30  # of addresses; what takes more is stopped by a MemoryError


@dataclass(frozen=True)
class Fault:
    attack: str
    case: int
    promise: str
    where: str
    detail: str
    did: tuple[str, ...] = ()


@dataclass
class Tally:
    """What became of an attack's cases."""

    cases: int = 0
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)  # seconds, case
    skipped: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


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
            _quietly(lambda: self._serve(seed, root / attack.name, theirs), self.log)
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
        _end_group(self.group)
        if self.pid:
            os.waitpid(self.pid, 0)
        _removed(self.scratch)

    def _serve(self, seed: int, shared: Path, connection: Connection[Any, Any]) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_NBYTES, hard))
        while True:
            number = connection.recv()
            _removed(self.scratch)
            self.scratch.mkdir()
            os.chdir(self.scratch)
            case = Case(seeded(seed, self.attack.name, number), self.scratch, shared, self.did)
            connection.send(_outcome(self.attack, case))

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


class Driver:
    """seed: of all cases. root: a folder for what cases need, emptied as they go. told: is called with each fault."""

    def __init__(self, attacks: Sequence[Attack], seed: int, root: Path, told: Callable[[Fault], None]) -> None:
        self._attacks, self._seed, self._root, self._told = attacks, seed, root, told
        self.tallies = {a.name: Tally() for a in attacks}
        self._workers: dict[str, Worker] = {}
        self._prepared: set[str] = set()

    def run_for(self, seconds: float) -> None:
        """Cases of all attacks, each attack's share of the time; the last one may end a little later."""
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            attack = min(self._attacks, key=lambda a: self.tallies[a.name].seconds / a.share)
            self.run(attack, self.tallies[attack.name].cases)
        self.close()

    def run(self, attack: Attack, number: int) -> tuple[str, ...]:
        """Runs one case; what it did."""
        tally = self.tallies[attack.name]
        start = time.monotonic()
        worker = self._worker(attack)
        tally.cases += 1
        begun = time.monotonic()
        found: dict[str, Any] = {}
        try:
            found = worker.run(number) or {}
        except BrokenError as broken:
            found = {"promise": broken.promise, "where": broken.where, "detail": broken.detail, "gone": True}
        did = tuple(worker.did.read_text(encoding="utf-8").splitlines())
        tally.slowest = max(tally.slowest, (time.monotonic() - begun, number))
        if "promise" in found:
            fault = Fault(attack.name, number, found["promise"], found["where"], found["detail"], did)
            tally.faults.append(fault)
            self._told(fault)
        if "skipped" in found:
            tally.skipped[found["skipped"]] += 1
        if attack.alone or "gone" in found or worker.done >= BATCH:
            self._workers.pop(attack.name).close()
        tally.seconds += time.monotonic() - start
        return did

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def _worker(self, attack: Attack) -> Worker:
        if attack.name not in self._prepared:
            self._prepare(attack)
            self._prepared.add(attack.name)
        if attack.name not in self._workers:
            self._workers[attack.name] = Worker(attack, self._seed, self._root)
        return self._workers[attack.name]

    def _prepare(self, attack: Attack) -> None:
        shared, log = self._root / attack.name, self._root / f"prepare-{attack.name}"
        shared.mkdir()
        pid = os.fork()
        if pid == 0:
            _quietly(lambda: _make(attack, shared), log)
        deadline = time.monotonic() + PREPARE_SECONDS
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                _end_group(pid)
                os.waitpid(pid, 0)
                raise RuntimeError(f"{attack.name} is not prepared after {PREPARE_SECONDS:.0f} s")
            time.sleep(0.02)
        if not (shared / "prepared").exists():
            raise RuntimeError(f"{attack.name} could not be prepared:\n{log.read_text()}")


def _quietly(work: Callable[[], None], log: Path) -> None:
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


def _make(attack: Attack, shared: Path) -> None:
    attack.prepare(shared)
    (shared / "prepared").touch()


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


def _end_group(pid: int) -> None:
    """A child that has only begun may not lead its group yet."""
    for end in (os.killpg, os.kill):
        with suppress(ProcessLookupError):
            end(pid, signal.SIGKILL)


def _removed(folder: Path) -> None:
    """Removes a folder with whatever a case left there, a mounted disk included."""
    if (disk := folder / "disk").is_mount():
        subprocess.run(["umount", "-l", str(disk)], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def as_json(seed: int, tallies: dict[str, Tally], seconds: float) -> str:
    attacks = {
        name: {"cases": t.cases, "faults": len(t.faults), "skipped": dict(t.skipped), "seconds": round(t.seconds, 1)}
        for name, t in tallies.items()
    }
    promises = Counter(f.promise for t in tallies.values() for f in t.faults)
    total = {"cases": sum(t.cases for t in tallies.values()), "faults": sum(promises.values())}
    return json.dumps({"seed": seed, "seconds": round(seconds, 1), **total, "broken": promises, "attacks": attacks})
