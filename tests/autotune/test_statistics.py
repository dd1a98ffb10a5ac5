"""The paired test against noise like that of real devices."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.trial.statistics import SamplesError, beats, median, quantile, signed_rank_p, summarize

TRIALS = 200


def steady(rng):
    return rng.lognormvariate(0, 0.02)


def bimodal(rng):
    """PoCL: the same kernel takes 1.1 or 2.3 ms."""
    return rng.choice((1.1, 2.3)) * rng.lognormvariate(0, 0.02)


def spiky(rng):
    """A shared machine: three launches in ten are hit by something else."""
    return rng.lognormvariate(0, 0.01) * (1 + (rng.random() < 0.3) * rng.random())


def wide(rng):
    """Thirty per cent between the fastest and the slowest."""
    return rng.uniform(0.85, 1.15)


def acceptance(noise, speedup, rounds, seed=1, drift=0.0):
    rng = random.Random(seed)
    accepted = 0
    for _ in range(TRIALS):
        weather = [1 + drift * math.sin(i / 3) for i in range(rounds)]
        incumbent = [noise(rng) * w * 1e-3 for w in weather]
        challenger = [noise(rng) * w * 1e-3 / speedup for w in weather]
        accepted += beats(challenger, incumbent)
    return accepted / TRIALS


@pytest.mark.parametrize("noise", [steady, bimodal, spiky, wide])
@pytest.mark.parametrize("rounds", [7, 20, 40])
def test_equal_kernels_are_seldom_told_apart(noise, rounds):
    assert acceptance(noise, 1.0, rounds) <= 0.05 + 0.03  # 0.03: two standard errors of 200 trials


@pytest.mark.parametrize(
    ("noise", "speedup", "rounds", "at_least"),
    [
        (steady, 1.05, 20, 0.99),
        (spiky, 1.10, 40, 0.75),
        (wide, 1.10, 20, 0.8),
        (wide, 1.10, 40, 0.95),
        (bimodal, 3.0, 20, 0.95),
    ],
)
def test_a_real_gain_is_mostly_seen(noise, speedup, rounds, at_least):
    assert acceptance(noise, speedup, rounds) >= at_least


def test_drift_that_hits_both_cancels():
    assert acceptance(steady, 1.05, 20, drift=0.3) >= 0.99


def test_a_gain_below_the_minimum_is_not_worth_it():
    incumbent = [1.0 + 1e-6 * i for i in range(30)]
    assert not beats([s / 1.005 for s in incumbent], incumbent)
    assert beats([s / 1.02 for s in incumbent], incumbent)
    assert beats([s / 1.005 for s in incumbent], incumbent, min_gain=0.001)


@pytest.mark.parametrize(("rounds", "expected"), [(1, False), (4, False), (5, True)])
def test_few_rounds_do_not_convince(rounds, expected):
    assert beats([1.0] * rounds, [2.0] * rounds) is expected


@pytest.mark.parametrize("tick", [1e-6, 5e-6])
def test_a_coarse_clock_gives_ties_and_still_an_answer(tick):
    slow, fast = [round(20e-6 / tick) * tick] * 20, [round(15e-6 / tick) * tick] * 20
    assert beats(fast, slow)
    assert not beats(slow, slow)


def test_p_values_are_those_of_the_textbook():
    assert signed_rank_p([1, 2, 3, 4, 5]) == 1 / 32
    assert signed_rank_p([-1, 2, 3, 4, 5]) == 2 / 32
    assert signed_rank_p([1, 1, -1]) == 4 / 8  # ties: every rank is 2, at least two of three positive
    assert signed_rank_p([0, 0]) == signed_rank_p([]) == 1.0


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=60))
def test_summary_is_ordered_and_inside(samples):
    s = summarize(samples)
    assert min(samples) <= s.p20 <= s.median <= s.p80 <= max(samples)
    assert s.count == len(samples)
    assert median(samples) == s.median


@given(st.lists(st.tuples(st.floats(1e-9, 1e3), st.floats(1e-9, 1e3)), min_size=1, max_size=40))
def test_not_both_can_win(pairs):
    a, b = zip(*pairs, strict=True)
    assert not (beats(a, b) and beats(b, a))


@pytest.mark.parametrize("bad", [[], [0.0], [-1.0], [math.nan], [1.0, math.inf]])
def test_broken_samples_are_refused(bad):
    with pytest.raises(SamplesError):
        summarize(bad)
    with pytest.raises(SamplesError):
        beats(bad, [1.0] * len(bad))


def test_unpaired_samples_and_odd_quantiles_are_refused():
    with pytest.raises(SamplesError, match="one pair a round"):
        beats([1.0, 2.0], [1.0])
    with pytest.raises(SamplesError, match="between 0 and 1"):
        quantile([1.0], 1.5)
