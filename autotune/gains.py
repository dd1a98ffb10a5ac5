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
    """Median seconds of the winner, of the best variant under tinygrad's heuristic, and of the best of what would be
    served untuned. None if the winner's run has no such baseline. nbytes: that one launch moves."""

    seconds: float
    heuristic_seconds: float | None
    default_seconds: float | None
    nbytes: int

    @classmethod
    def of(cls, winner: Winner) -> Self:
        untuned, tuned = _by_opts(winner)
        heuristic, default = (min((b.median_seconds for b in group), default=None) for group in (untuned, tuned))
        return cls(winner.row.median_seconds, heuristic, default, winner.row.measurement.nbytes)

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
    """The winner's baselines, but of those under tinygrad's heuristic only the fastest: what would be served untuned is
    of use for other shapes, too."""
    untuned, tuned = _by_opts(winner)
    return (*sorted(untuned, key=lambda b: b.median_seconds)[:1], *tuned)


def _by_opts(winner: Winner) -> tuple[list[Recorded], list[Recorded]]:
    """The baselines under tinygrad's heuristic, and the others."""
    untuned = [b for b in winner.baselines if b.measurement.schedule.opts is None]
    return untuned, [b for b in winner.baselines if b.measurement.schedule.opts is not None]


def geometric_mean(ratios: Sequence[float]) -> float | None:
    return exp(sum(map(log, ratios)) / len(ratios)) if ratios else None
