"""What a stored winner is worth: its figures beside the baselines of its run. Arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from db.store import Winner


@dataclass(frozen=True)
class Gains:
    """Medians in seconds: of the winner, of the best variant under tinygrad's heuristic, of our default schedule.
    None where the winner's run has no such baseline."""

    seconds: float
    heuristic_seconds: float | None
    default_seconds: float | None
    nbytes: int

    @classmethod
    def of(cls, winner: Winner) -> Self:
        tuned = [b.median_seconds for b in winner.baselines if b.measurement.schedule.opts is not None]
        untuned = [b.median_seconds for b in winner.baselines if b.measurement.schedule.opts is None]
        seconds = winner.row.median_seconds
        return cls(seconds, min(untuned, default=None), min(tuned, default=None), winner.row.measurement.nbytes)

    @property
    def bandwidth(self) -> float:
        """Bytes a second."""
        return self.nbytes / self.seconds

    @property
    def gain(self) -> float | None:
        """How many times faster than tinygrad's heuristic."""
        return self.heuristic_seconds / self.seconds if self.heuristic_seconds else None

    @property
    def gain_over_default(self) -> float | None:
        return self.default_seconds / self.seconds if self.default_seconds else None


def geometric_mean(ratios: Sequence[float]) -> float | None:
    return exp(sum(map(log, ratios)) / len(ratios)) if ratios else None
