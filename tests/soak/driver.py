"""Runs cases of attacks in child processes, watches them, and counts what they found.

A child takes one case after the other, so that a device is opened once for many; it is replaced after BATCH cases, and
when it dies or hangs. A case depends on its seed, attack and number alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .attack import Attack, BrokenError
from .worker import Worker, end_group, quietly

BATCH = 50
PREPARE_SECONDS = 120.0
Tell = Callable[["Fault"], None]


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
    """What became of an attack's cases. injected: faults, of which a case may have several. faults: broken promises."""

    cases: int = 0
    injected: int = 0
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)  # seconds, case
    skipped: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


class Driver:
    """seed: of all cases. root: a folder for what cases need, emptied as they go. told: is called with each fault."""

    def __init__(self, attacks: Sequence[Attack], seed: int, root: Path, told: Tell) -> None:
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
        else:
            tally.injected += found.get("injected", 1)
        if "gone" in found or worker.done >= BATCH:
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
            quietly(lambda: _make(attack, shared), log)
        deadline = time.monotonic() + PREPARE_SECONDS
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                end_group(pid)
                os.waitpid(pid, 0)
                raise RuntimeError(f"{attack.name} is not prepared after {PREPARE_SECONDS:.0f} s")
            time.sleep(0.02)
        if not (shared / "prepared").exists():
            raise RuntimeError(f"{attack.name} could not be prepared:\n{log.read_text()}")


def run_side_by_side(
    attacks: Sequence[Attack], seed: int, root: Path, seconds: float, lanes: int, tell: Tell
) -> dict[str, Tally]:
    """`Driver.run_for` in some processes, each with a part of the attacks and a folder of its own: many cases wait most
    of their time. `tell` is called in those processes."""
    parts: list[list[Attack]] = [[] for _ in range(min(lanes, len(attacks)))]
    for attack in sorted(attacks, key=lambda a: -a.share):
        min(parts, key=lambda part: sum(a.share for a in part)).append(attack)
    running = []
    for i, part in enumerate(parts):
        (folder := root / f"lane{i}").mkdir()
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(
            target=_lane, args=(part, seed, folder, seconds, tell, theirs)
        )
        process.start()
        theirs.close()
        running.append((process, ours))
    tallies: dict[str, Tally] = {}
    for process, ours in running:
        tallies |= ours.recv()
        process.join()
    return {a.name: tallies[a.name] for a in attacks}


def _lane(
    attacks: Sequence[Attack], seed: int, root: Path, seconds: float, tell: Tell, told: Connection[Any, Any]
) -> None:
    driver = Driver(attacks, seed, root, tell)
    driver.run_for(seconds)
    told.send(driver.tallies)


def _make(attack: Attack, shared: Path) -> None:
    attack.prepare(shared)
    (shared / "prepared").touch()


def as_json(seed: int, tallies: dict[str, Tally], seconds: float) -> str:
    attacks = {
        name: {
            "cases": t.cases,
            "injected": t.injected,
            "faults": len(t.faults),
            "skipped": dict(t.skipped),
            "seconds": round(t.seconds, 1),
        }
        for name, t in tallies.items()
    }
    promises = Counter(f.promise for t in tallies.values() for f in t.faults)
    counts = {name: sum(getattr(t, name) for t in tallies.values()) for name in ("cases", "injected")}
    total = {**counts, "faults": sum(promises.values())}
    return json.dumps({"seed": seed, "seconds": round(seconds, 1), **total, "broken": promises, "attacks": attacks})
