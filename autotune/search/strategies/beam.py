"""Beam search: expands the fastest known schedules, level by level.

A level expands each of the `width` fastest known schedules by one step (one more opt, a changed parameter or another
variant), drops candidates that were seen before, and proposes the most promising ones first. The search ends when
several consecutive levels find nothing faster, or when the caller stops. Schedules that were known before the search
are expanded first, so that a short search explores the neighbourhood of the baselines.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np

from autotune.search.cost import CostModel
from autotune.search.space import Candidate
from autotune.search.strategies.strategy import Task
from db.records import Schedule

EXPLORE = 0.25  # the share of a batch that is drawn at random, because the cost model may be wrong
MIN_PROGRESS = 0.99  # a level makes progress if its best time is below MIN_PROGRESS times the best time before
NEAR = 4.0  # schedules slower than NEAR times the fastest are not expanded
LEVEL = 12  # a level has at most LEVEL * width candidates


class BeamSearch:
    """A `Strategy`. width: the number of schedules that a level expands. patience: the number of levels without
    progress after which the search ends.

    Proposes the task's seeds first, then the neighbours of the fastest schedules in `known`, then the starts.
    """

    def __init__(self, task: Task, width: int = 4, seed: int = 0, patience: int = 2) -> None:
        self._space, self._width, self._patience = task.space, width, patience
        self._random = random.Random(seed)
        self._model = CostModel(task.space.starts, task.expected)
        self._seen: set[tuple[object, ...]] = set()
        self._known: dict[tuple[object, ...], tuple[float, Candidate]] = {}
        self._expanded: set[tuple[object, ...]] = set()
        self._level_best = float("inf")
        self._stale = 0
        self._frontier: list[Candidate] = []
        for schedule, seconds in task.known.items():
            if candidate := task.space.candidate(schedule):
                self._seen.add(candidate.signature)
                self.observe(candidate, seconds)
        self._seed(task.seeds)
        if self._known:
            promising, self._frontier = self._frontier, []
            self._next_level()
            self._frontier = [*promising, *self._frontier]
        self._starts: Iterable[Schedule] | None = task.starts

    def _seed(self, schedules: Iterable[Schedule]) -> None:
        for schedule in schedules:
            if schedule.opts is not None and (candidate := self._space.candidate(schedule)):
                self._add(candidate)

    @property
    def best(self) -> tuple[float, Candidate] | None:
        """The fastest candidate observed, with its seconds."""
        return min(self._known.values(), key=lambda t: t[0], default=None)

    def fastest(self, count: int) -> list[Candidate]:
        """The `count` fastest candidates observed, the fastest first."""
        return [c for _, c in sorted(self._known.values(), key=lambda t: t[0])[:count]]

    def propose(self, count: int) -> list[Candidate]:
        """Up to `count` candidates that were never proposed before; empty when the search is over."""
        while not self._frontier:
            if self._starts is not None:  # only now, because the sizes of each take a fraction of a second
                starts, self._starts = self._starts, None
                self._seed(starts)
            elif not self._next_level():
                return []
        ranked = self._ranked()
        split = max(1, count - int(count * EXPLORE))
        batch, rest = ranked[:split], ranked[split:]
        self._random.shuffle(rest)
        drawn = count - len(batch)
        self._frontier = rest[drawn:]
        return batch + rest[:drawn]

    def observe(self, candidate: Candidate, seconds: float | None) -> None:
        """Records a candidate's seconds, or None if it failed."""
        if seconds is not None:
            self._known[candidate.signature] = (seconds, candidate)
            self._model.observe(candidate, seconds)

    def _add(self, candidate: Candidate) -> None:
        if candidate.signature not in self._seen:
            self._seen.add(candidate.signature)
            self._frontier.append(candidate)

    def _next_level(self) -> bool:
        """Expands the fastest schedules. Returns False if no schedule is left to expand."""
        if not self._known:
            return False
        fastest = min(seconds for seconds, _ in self._known.values())
        self._stale = 0 if fastest < self._level_best * MIN_PROGRESS else self._stale + 1
        self._level_best = min(fastest, self._level_best)
        if self._stale > self._patience:
            return False
        near = [c for c in self.fastest(len(self._known)) if self._known[c.signature][0] <= fastest * NEAR]
        ready = [c for c in near if c.signature not in self._expanded]
        for parent in ready[: self._width]:
            self._expanded.add(parent.signature)
            for child in self._space.children(parent.schedule):
                self._add(child)
        # proposing every child of a level would take too long to reach deep levels
        self._frontier = self._ranked()[: LEVEL * self._width]
        return bool(ready)

    def _ranked(self) -> list[Candidate]:
        """This level's candidates, the most promising first."""
        order = np.argsort(self._model.predict(self._frontier), kind="stable")
        return [self._frontier[i] for i in order]
