"""Random search: each candidate is the end of a random walk. It is the baseline for other strategies."""

from __future__ import annotations

import random

from autotune.search.sample import walks
from autotune.search.space import Candidate
from autotune.search.strategies.strategy import Task
from db.records import Schedule

OPTS = 6  # the largest number of opts in a walk
MISSES = 200  # the search ends after this number of consecutive walks that find no new schedule


class RandomSearch:
    """Proposes the task's seeds and starts first, and then the ends of random walks."""

    def __init__(self, task: Task, seed: int = 0) -> None:
        self._space = task.space
        self._walks = walks(task.space, random.Random(seed), OPTS)
        self._seen = {c.signature for s in task.known if (c := task.space.candidate(s))}
        self._given = [s for s in (*task.seeds, *task.starts) if s.opts is not None]

    def propose(self, count: int) -> list[Candidate]:
        found: list[Candidate] = []
        misses = 0
        while len(found) < count and misses < MISSES:
            candidate = self._space.candidate(schedule) if (schedule := self._next()) else None
            if schedule is None:
                break
            if candidate is None or candidate.signature in self._seen:
                misses += 1
                continue
            misses = 0
            self._seen.add(candidate.signature)
            found.append(candidate)
        return found

    def observe(self, candidate: Candidate, seconds: float | None) -> None:
        """Ignores the result, which does not influence later proposals."""

    def _next(self) -> Schedule | None:
        return self._given.pop(0) if self._given else next(self._walks, None)
