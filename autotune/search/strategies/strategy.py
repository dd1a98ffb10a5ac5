"""The inputs of a search strategy, and the protocol that it implements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from autotune.search.ranking import Expected
from autotune.search.space import Candidate
from db.records import Schedule


class SearchSpace(Protocol):
    """The space of schedules that a strategy may propose. `autotune.search.space.Space` implements it."""

    @property
    def starts(self) -> Sequence[Schedule]:
        """Every variant with every choice of its integer parameters."""

    def schedulable(self, schedule: Schedule) -> bool:
        """False if the variant fixes its own structure and takes no opts."""

    def candidate(self, schedule: Schedule) -> Candidate | None:
        """The schedule with its sizes, or None if it does not apply."""

    def children(self, parent: Schedule) -> Iterator[Candidate]:
        """The schedules that are one step away: first those with one more opt, then those with other parameters."""


@dataclass(frozen=True)
class Task:
    """Where a search begins. known: schedules that were already measured, with their seconds; they are not proposed
    again. seeds: promising schedules, which are proposed first. starts: schedules in other parts of the space,
    which are asked for when the neighbourhood of the others is exhausted.
    expected: what is known of the speed of schedules before any is measured."""

    space: SearchSpace
    known: Mapping[Schedule, float] = field(default_factory=dict)
    seeds: Sequence[Schedule] = ()
    starts: Iterable[Schedule] = ()
    expected: Expected | None = None


class Strategy(Protocol):
    """A search strategy. The caller alternates `propose` and `observe`:

    while batch := strategy.propose(16):
        for candidate in batch:
            strategy.observe(candidate, seconds or None)
    """

    def propose(self, count: int) -> list[Candidate]:
        """Up to `count` candidates that were never proposed before; empty when the search is over."""

    def observe(self, candidate: Candidate, seconds: float | None) -> None:
        """Records a candidate's seconds, or None if it failed."""
