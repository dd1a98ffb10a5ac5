"""Statistics of timing samples: summaries and the paired test that decides between two kernels. Pure arithmetic.

Samples are seconds. The runner takes them (cold weights, warm-up, interleaving).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from db.errors import AutotuneError
from db.rows import quantile as stored_quantile

MIN_GAIN = 0.01
ALPHA = 0.05


class SamplesError(AutotuneError, ValueError):
    """The samples cannot be summarised or compared."""


@dataclass(frozen=True)
class Summary:
    """Seconds: the median and the 20th and 80th percentile."""

    median: float
    p20: float
    p80: float
    count: int


def _check(samples: Sequence[float]) -> None:
    if not samples:
        raise SamplesError("no samples: take at least one launch")
    if bad := [s for s in samples if not (math.isfinite(s) and s > 0)]:
        raise SamplesError(f"a sample of {bad[0]!r} seconds is no duration: the device's clock is broken")


def quantile(samples: Sequence[float], q: float) -> float:
    """The q-quantile, 0 <= q <= 1, linear between the two nearest samples. Raises SamplesError."""
    _check(samples)
    if not 0 <= q <= 1:
        raise SamplesError(f"quantile {q!r} is not between 0 and 1")
    return stored_quantile(samples, q)


def median(samples: Sequence[float]) -> float:
    return quantile(samples, 0.5)


def summarize(samples: Sequence[float]) -> Summary:
    return Summary(quantile(samples, 0.5), quantile(samples, 0.2), quantile(samples, 0.8), len(samples))


def _log_ratios(challenger: Sequence[float], incumbent: Sequence[float]) -> list[float]:
    _check(challenger)
    _check(incumbent)
    if len(challenger) != len(incumbent):
        raise SamplesError(f"{len(challenger)} and {len(incumbent)} samples: a paired test needs one pair a round")
    return [math.log(i / c) for c, i in zip(challenger, incumbent, strict=True)]


def signed_rank_p(differences: Sequence[float]) -> float:
    """One-sided p-value of the Wilcoxon signed-rank test against "symmetric about 0 or below"; 1.0 without evidence.

    Exact: the rank sum's distribution over all sign flips, built up one rank at a time. Zeros are dropped and equal
    sizes share their mean rank (Wilcoxon 1945), which keeps it exact on coarse clocks.
    """
    sizes = sorted((abs(d), d > 0) for d in differences if d != 0)
    doubled: list[int] = []  # twice the rank, so that a shared rank is whole
    start = 0
    while start < len(sizes):
        stop = start
        while stop < len(sizes) and sizes[stop][0] == sizes[start][0]:
            stop += 1
        doubled += [start + stop + 1] * (stop - start)
        start = stop
    observed = sum(rank for rank, (_, positive) in zip(doubled, sizes, strict=True) if positive)
    chance = np.zeros(sum(doubled) + 1)  # of each rank sum, when every sign is a coin flip
    chance[0] = 1.0
    for rank in doubled:
        chance[rank:] = chance[rank:] + chance[:-rank]
        chance /= 2
    return float(chance[observed:].sum())


def beats(
    challenger: Sequence[float], incumbent: Sequence[float], *, min_gain: float = MIN_GAIN, alpha: float = ALPHA
) -> bool:
    """Is the challenger faster by more than `min_gain`, beyond the noise?

    Samples are paired by round (taken next to each other, so drift cancels). The test is on log ratios shifted by
    `min_gain`: at most `alpha` of the pairs of equal kernels are accepted, whatever the noise's shape, also when it
    has two modes. Fewer than 5 rounds can never convince at alpha = 0.05. Raises SamplesError.
    """
    floor = math.log1p(min_gain)
    return signed_rank_p([r - floor for r in _log_ratios(challenger, incumbent)]) <= alpha
