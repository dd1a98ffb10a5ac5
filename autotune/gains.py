"""Compares a stored winner with the baselines of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from db.store import Recorded, Winner


@dataclass(frozen=True)
class Gains:
    """Median seconds of the winner, of the best variant under tinygrad's heuristic, and of our default schedule. None
    if the winner's run has no such baseline. nbytes: that one launch moves."""

    seconds: float
    heuristic_seconds: float | None
    default_seconds: float | None
    nbytes: int

    @classmethod
    def of(cls, winner: Winner) -> Self:
        best = {b.measurement.schedule.opts is None: b.median_seconds for b in judged_by(winner)}
        return cls(winner.row.median_seconds, best.get(True), best.get(False), winner.row.measurement.nbytes)

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        return self.nbytes / self.seconds

    @property
    def gain(self) -> float | None:
        """The speed relative to tinygrad's heuristic: 2.0 is twice as fast."""
        return self.heuristic_seconds / self.seconds if self.heuristic_seconds else None

    @property
    def gain_over_default(self) -> float | None:
        return self.default_seconds / self.seconds if self.default_seconds else None


def judged_by(winner: Winner) -> tuple[Recorded, ...]:
    """The fastest of the winner's baselines under tinygrad's heuristic, and the fastest of those with opts."""
    groups = [
        [b for b in winner.baselines if (b.measurement.schedule.opts is None) == untuned] for untuned in (True, False)
    ]
    return tuple(min(group, key=lambda b: b.median_seconds) for group in groups if group)


def geometric_mean(ratios: Sequence[float]) -> float | None:
    return exp(sum(map(log, ratios)) / len(ratios)) if ratios else None
