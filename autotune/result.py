"""What tuning a workload says: where it stands, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from db.records import Schedule, Workload


@dataclass(frozen=True)
class Progress:
    """Where a search stands. best_seconds: the fastest probe so far. waiting: for what, while nothing is searched."""

    elapsed_seconds: float = 0.0
    tried: int = 0
    best_seconds: float | None = None
    waiting: str = ""


@dataclass(frozen=True)
class Result:
    """What became of a workload.

    status: "tuned", "baseline wins" or "failed" (reason says why); a sweep adds "known", "shipped" (the packaged
    store serves it on this very device) and "skipped".
    heuristic_seconds: the fastest of our variants under tinygrad's heuristic; default_seconds: the best of what would
    be served untuned; seconds: the accepted schedule; all medians of samples taken in turn.
    """

    workload: Workload
    status: str
    schedule: Schedule | None = None
    seconds: float | None = None
    heuristic_seconds: float | None = None
    default_seconds: float | None = None
    error: float | None = None
    tried: int = 0
    elapsed_seconds: float = 0.0
    reason: str = ""

    @property
    def gain(self) -> float | None:
        """How many times faster than tinygrad's heuristic."""
        return self.heuristic_seconds / self.seconds if self.heuristic_seconds and self.seconds else None
