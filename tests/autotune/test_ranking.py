"""What other workloads' timings say of schedules that were never compiled."""

import itertools
import math

import numpy as np
import pytest

from autotune.search.ranking import MIN_ROWS, Ranking, around, promising
from db.records import Opt, Schedule, Workload

SHAPES = [(n, k) for n in (1024, 2048, 4096, 8192) for k in (1024, 4096)]
NUMBERS = list(itertools.product((1, 2, 4), (1, 2, 4, 8), (1, 2, 4, 8), (0, 1)))


def workload(n, k, op="linear"):
    return Workload(op, "Q4_K", n, k)


def schedule(rows, warps, words, staged, variant="warp"):
    return Schedule(variant, (("rows", rows), ("staged", staged), ("warps", warps), ("words", words)), ())


def seconds(w, s):
    """Best are more rows for taller weights, 4 warps, 8 words, and x in local memory."""
    p = dict(s.params)
    best_rows = max(0.0, math.log2(w.n / 2048))
    off = abs(math.log2(p["rows"]) - best_rows) + abs(math.log2(p["warps"]) - 2) + abs(math.log2(p["words"]) - 3)
    return 1e-9 * w.n * w.k * math.exp(0.2 * off + 0.4 * (1 - p["staged"]))


def timings(shapes=SHAPES, every=3):
    return [
        (w, s, seconds(w, s))
        for w in (workload(*shape) for shape in shapes)
        for s in (schedule(*numbers) for numbers in NUMBERS[::every])
    ]


@pytest.mark.parametrize("shape", [(1536, 2048), (6144, 2048), (4096, 4096)])
def test_finds_the_fast_schedules_of_a_shape_that_it_has_not_seen(shape):
    w = workload(*shape)
    expected = Ranking.fit([t for t in timings() if t[0] != w]).of(w)
    every = [schedule(*numbers) for numbers in NUMBERS]
    fastest = min(seconds(w, s) for s in every)
    assert min(seconds(w, s) for s in promising(every, expected, 5)) <= 1.05 * fastest


def test_says_nothing_of_an_op_that_was_never_measured():
    assert Ranking.fit(timings()).of(workload(1024, 1024, "gate_up")) is None
    assert Ranking.fit([]).of(workload(1024, 1024)) is None


def test_says_nothing_from_one_workload_or_a_few_rows():
    w = workload(1024, 1024)
    assert Ranking.fit(timings(SHAPES[:1], every=1)).of(w) is None
    assert Ranking.fit(timings()[: MIN_ROWS - 1]).of(w) is None


def test_a_variant_that_is_not_known_counts_as_average():
    w = workload(1024, 1024)
    expected = Ranking.fit(timings()).of(w)
    every = [schedule(*numbers) for numbers in NUMBERS]
    (other,) = expected([Schedule("factored", (), (Opt("UPCAST", 0, 4),))])
    assert expected(every).min() < other < expected(every).max()
    assert np.isfinite(expected([Schedule("warp", (("new", 3),), (Opt("NOLOCALS"), Opt("PADTO", 0, 32)))])).all()
    assert expected([]).shape == (0,)


def test_nothing_is_promising_where_nothing_is_expected():
    assert promising([schedule(1, 1, 1, 0)], None, 5) == []
    assert promising([], lambda s: np.zeros(len(s)), 5) == []


def test_without_measurements_the_neighbours_of_a_known_schedule_come_first():
    known, every = schedule(2, 4, 4, 1), [schedule(*numbers) for numbers in NUMBERS]
    first = promising([Schedule("factored", (), ()), *every], around([known]), 8)
    assert first[0] == known
    one_step = [schedule(1, 4, 4, 1), schedule(4, 4, 4, 1), schedule(2, 2, 4, 1), schedule(2, 8, 4, 1)]
    one_step += [schedule(2, 4, 2, 1), schedule(2, 4, 8, 1), schedule(2, 4, 4, 0)]
    assert {*first[1:]} == {*one_step}
