"""The strategies by name. Each is made from a `Task`; `strategy` says what it must do."""

from __future__ import annotations

from collections.abc import Callable

from autotune.search.strategies.beam import BeamSearch
from autotune.search.strategies.random import RandomSearch
from autotune.search.strategies.strategy import Strategy, Task

__all__ = ["STRATEGIES", "BeamSearch", "RandomSearch", "Strategy", "Task"]

STRATEGIES: dict[str, Callable[[Task], Strategy]] = {"beam": BeamSearch, "random": RandomSearch}
