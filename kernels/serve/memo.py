"""Answers that are each made once, whatever number of threads asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from db.guard import Guard

V = TypeVar("V")


class Memo(dict[Any, V]):
    """memo[a, b] is make(a, b), which is called once under a lock and remembered. Memos may share a guard.

    limit: answers that are remembered; the oldest is forgotten for one more. An error is not remembered.
    """

    def __init__(self, guard: Guard, make: Callable[..., V], limit: int = 1 << 12) -> None:
        super().__init__()
        self._guard, self._make, self._limit = guard, make, limit

    def __missing__(self, key: Any) -> V:
        with self._guard.lock:
            if key in self:  # another thread made it while this one waited
                return dict.__getitem__(self, key)
            made = self._make(*key) if isinstance(key, tuple) else self._make(key)
            if len(self) >= self._limit:
                del self[next(iter(self))]
            self[key] = made
            return made
