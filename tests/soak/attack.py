"""What an attack is, what it may find, and what a case has to work with."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

HANG_SECONDS = 30.0


class Promise(StrEnum):
    """What must hold under every attack."""

    ROWS = "rows lost"
    SCHEDULE = "wrong served"
    TRACEBACK = "traceback"
    HANG = "hang"
    DEATH = "death"
    WORD = "untold"  # an end without a line that says why, or with a status that means nothing


class BrokenError(Exception):
    """A promise was not kept. `where` is equal for faults of one cause, as far as that can be told."""

    def __init__(self, promise: Promise, where: str, detail: str = "") -> None:
        super().__init__(f"{promise}: {where}: {detail}")
        self.promise, self.where, self.detail = promise, where, detail


class SkippedError(Exception):
    """This machine cannot do what the case needs; the text names the kind."""


@dataclass(frozen=True)
class Case:
    """rng: of this case alone. folder: empty, and of this case alone. shared: what `Attack.prepare` left. log: what the
    case has done so far, for who repeats it."""

    rng: random.Random
    folder: Path
    shared: Path
    log: Path

    def note(self, did: str) -> None:
        """At once: the case may not live to tell."""
        with self.log.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"{did[:300]!r}\n"[1:-2] + "\n")


_injected = [0]


def inject(count: int = 1) -> None:
    """Counts faults that the case of this process injects. One that counts none is one by itself."""
    _injected[0] += count


def injected() -> int:
    """The faults of the case that has ended."""
    count, _injected[0] = max(1, _injected[0]), 0
    return count


class Attack(Protocol):
    """One way to do harm. A case raises BrokenError, or lets an exception of the product pass; both are faults.

    share: of the time, beside other attacks. limit_seconds: how long one case may take before it counts as hanging.
    """

    name: str
    share: float
    limit_seconds: float

    def prepare(self, shared: Path) -> None:
        """Makes what cases start from, once, in a process of its own."""

    def run(self, case: Case) -> None: ...


def seeded(seed: int, attack: str, number: int) -> random.Random:
    """A case's own numbers: equal for equal arguments, whatever was run before."""
    return random.Random(f"{seed} {attack} {number}")
