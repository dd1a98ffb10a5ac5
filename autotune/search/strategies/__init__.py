"""The strategies by name. Each is constructed from a `Task`; `strategy.py` defines the protocol."""

from __future__ import annotations

from typing import Protocol

from autotune.search.strategies.beam import BeamSearch
from autotune.search.strategies.random import RandomSearch
from autotune.search.strategies.strategy import Strategy, Task

__all__ = ["STRATEGIES", "BeamSearch", "MakeStrategy", "RandomSearch", "Strategy", "Task"]


class MakeStrategy(Protocol):
    """Constructs a strategy for one task. seed: of its random numbers."""

    def __call__(self, task: Task, *, seed: int = 0) -> Strategy: ...


STRATEGIES: dict[str, MakeStrategy] = {"beam": BeamSearch, "random": RandomSearch}
