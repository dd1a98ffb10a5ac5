"""The cost model: it ranks candidates of a known cost, says nothing before it knows anything, and takes odd facts."""

import random

import numpy as np
import pytest
from support.synthetic_space import SyntheticSpace, seconds

from autotune.search.cost import MIN_OBSERVATIONS, CostModel
from autotune.search.space import Candidate
from db.records import Opt, Schedule
from kernels.serve.limits import KernelSizes


def taught(count, cost=seconds, seed=0):
    model, pool = CostModel(SyntheticSpace().starts), SyntheticSpace().everything()
    random.Random(seed).shuffle(pool)
    for c in pool[:count]:
        model.observe(c, cost(c))
    return model, pool[count:]


def rank_correlation(a, b):
    ranks = [np.argsort(np.argsort(v)) for v in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_says_nothing_before_it_has_seen_enough():
    model, rest = taught(MIN_OBSERVATIONS - 1)
    assert (model.predict(rest) == 0).all()
    model.observe(rest[0], seconds(rest[0]))
    assert (model.predict(rest) != 0).any()
    assert model.predict([]).shape == (0,)


@pytest.mark.parametrize("seed", range(3))
def test_ranks_what_it_has_not_seen(seed):
    model, rest = taught(80, seed=seed)
    true = np.log([seconds(c) for c in rest])
    assert rank_correlation(model.predict(rest), true) > 0.7
    # what it puts first is what matters: among its best fifty is one of the truly fastest in a hundred
    first = np.argsort(model.predict(rest))[:50]
    assert true[first].min() <= np.quantile(true, 0.01)


def test_more_facts_predict_better():
    def worst(count):
        model, rest = taught(count)
        return rank_correlation(model.predict(rest), [seconds(c) for c in rest])

    assert worst(200) > worst(12)


def test_takes_noise_and_durations_of_any_size():
    rng = random.Random(1)
    for scale in (1e-9, 1.0, 1e5):
        model, rest = taught(120, lambda c, s=scale: seconds(c) * s * rng.uniform(0.7, 1.4))
        predicted = model.predict(rest)
        assert np.isfinite(predicted).all()
        assert rank_correlation(predicted, [seconds(c) for c in rest]) > 0.6


def test_equal_facts_are_no_trouble():
    model, rest = taught(0)
    for _ in range(20):
        model.observe(rest[0], 1e-3)
    assert np.isfinite(model.predict(rest)).all()


def test_sizes_parameters_variants_and_odd_opts_are_told_apart():
    def candidate(variant="dequant", params=(), opts=(), **sizes):
        plain = {"body": 8, "threads": 1, "groups": 1, "grid": 64, "upcast": 1, "unroll": 1, "shared_nbytes": 0}
        return Candidate(Schedule(variant, params, opts), KernelSizes(**{**plain, **sizes}), ())

    different = [
        candidate(),
        candidate("factored"),
        candidate("warp", (("rows", 2), ("warps", 4), ("words", 4))),
        candidate(params=(("lanes", 8), ("words", 4))),
        candidate(threads=32),
        candidate(threads=32, groups=32),
        candidate(opts=(Opt("THREAD", None, 2, "1"),)),
        candidate(body=2),
    ]
    for slow in different[1:]:
        model = CostModel([c.schedule for c in different])
        for _ in range(MIN_OBSERVATIONS):
            model.observe(different[0], 1e-3)
            model.observe(slow, 2e-3)
        first, second = model.predict([different[0], slow])
        assert first < second, slow
        assert np.isfinite([first, second]).all()
