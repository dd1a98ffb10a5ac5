"""What a search strategy is given, and what it must do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from autotune.search.space import Candidate
from db.records import Schedule


class SearchSpace(Protocol):
    """The schedules that a strategy may propose; `autotune.search.space.Space` is one."""

    @property
    def starts(self) -> Sequence[Schedule]:
        """Every variant with every choice of its integer parameters."""

    def schedulable(self, schedule: Schedule) -> bool:
        """False where the variant fixes its own structure and takes no opts."""

    def candidate(self, schedule: Schedule) -> Candidate | None:
        """The schedule with its size, or None where it does not apply."""

    def children(self, parent: Schedule) -> Iterator[Candidate]:
        """The schedules that are one step away: first those with one more opt, then those with other parameters."""


@dataclass(frozen=True)
class Task:
    """Where a search begins. known: seconds of schedules that were measured before; they are not proposed again.
    seeds: promising schedules, to be proposed first. starts: further ones, in other parts of the space."""

    space: SearchSpace
    known: Mapping[Schedule, float] = field(default_factory=dict)
    seeds: Sequence[Schedule] = ()
    starts: Sequence[Schedule] = ()


class Strategy(Protocol):
    """Drive it with `propose` and `observe`:

    while batch := strategy.propose(16):
        for candidate in batch:
            strategy.observe(candidate, seconds or None)
    """

    def propose(self, count: int) -> list[Candidate]:
        """Up to `count` candidates that were never proposed before; empty when the search is over."""

    def observe(self, candidate: Candidate, seconds: float | None) -> None:
        """Takes a candidate's seconds, or None where it failed."""
