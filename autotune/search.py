"""Beam search over schedules. Pure: it yields candidates and receives outcomes; no clock, no store, no device.

A level expands the `width` fastest schedules known by one step each (an opt more, a parameter changed, another
variant), drops what was seen before, and hands out the most promising first. The search ends when a level finds nothing
that is faster, or when whoever drives it stops asking. What is known before it begins is expanded first: a short search
is one around the baselines.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from autotune.costmodel import CostModel
from autotune.tinygrad_api.space import Candidate, Space
from db.records import Schedule

# of a batch, the share that is drawn at random: the model is wrong in places that it never tries
EXPLORE = 0.25
MIN_PROGRESS = 0.99
NEAR = 4.0  # what takes so many times what the fastest does is not where something faster is found
# candidates of a level, times the width
LEVEL = 12


class BeamSearch:
    """Drive it with `propose` and `observe`:

    while batch := search.propose(16):
        for candidate in batch:
            search.observe(candidate, seconds or None)
    """

    def __init__(
        self,
        space: Space,
        seeds: Sequence[Schedule],
        width: int,
        seed: int = 0,
        patience: int = 2,
        *,
        known: Mapping[Schedule, float] = MappingProxyType({}),
        starts: Sequence[Schedule] = (),
    ) -> None:
        """seeds: promising schedules, proposed first; starts: further ones, proposed after what is next to the fastest
        `known`, which have been measured (seconds) and are not proposed."""
        self._space, self._width, self._patience = space, width, patience
        self._random = random.Random(seed)
        self._model = CostModel(space.starts)
        self._seen: set[tuple[object, ...]] = set()
        self._known: dict[tuple[object, ...], tuple[float, Candidate]] = {}
        self._expanded: set[tuple[object, ...]] = set()
        self._level_best = float("inf")
        self._stale = 0
        self._frontier: list[Candidate] = []
        for schedule, seconds in known.items():
            if candidate := space.candidate(schedule):
                self._seen.add(candidate.signature)
                self.observe(candidate, seconds)
        self._seed(seeds)
        if self._known:
            promising, self._frontier = self._frontier, []
            self._next_level()
            self._frontier = [*promising, *self._frontier]
        self._starts = tuple(starts)

    def _seed(self, schedules: Sequence[Schedule]) -> None:
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
            if self._starts:  # sized up only now: each costs a fraction of a second
                starts, self._starts = self._starts, ()
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
        """What a candidate took, or None where it failed."""
        if seconds is not None:
            self._known[candidate.signature] = (seconds, candidate)
            self._model.observe(candidate, seconds)

    def _add(self, candidate: Candidate) -> None:
        if candidate.signature not in self._seen:
            self._seen.add(candidate.signature)
            self._frontier.append(candidate)

    def _next_level(self) -> bool:
        """Expands the fastest schedules; False when there is nothing left that is worth expanding."""
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
        # a beam that waited for every child of its parents would never get deep
        self._frontier = self._ranked()[: LEVEL * self._width]
        return bool(ready)

    def _ranked(self) -> list[Candidate]:
        """This level's candidates, the most promising first."""
        order = np.argsort(self._model.predict(self._frontier), kind="stable")
        return [self._frontier[i] for i in order]
