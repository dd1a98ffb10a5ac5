"""The strategies on a space whose best is known: it gets there, soon, says nothing twice, and always ends."""

import random
import statistics
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.synthetic_space import BEST, SyntheticSpace, of, seconds
from support.tiers import few_of

from autotune.search.strategies import STRATEGIES, BeamSearch, RandomSearch, Task
from db.records import Schedule

SEEDS = (of("dequant"), of("factored"))


def task(seeds=SEEDS, **known):
    return Task(SyntheticSpace(), seeds=seeds, **known)


def drive(search, cost=seconds, batch=8, limit=10_000):
    """All that was proposed, in order."""
    proposed = []
    while len(proposed) < limit and (found := search.propose(batch)):
        assert len(found) <= batch
        proposed += found
        for c in found:
            search.observe(c, cost(c))
    return proposed


def evaluations_until_best(proposed):
    return next((i + 1 for i, c in enumerate(proposed) if c.schedule == BEST), len(proposed) + 10_000)


@pytest.mark.parametrize("seed", range(4))
def test_finds_the_best(seed):
    search = BeamSearch(task(), width=4, seed=seed)
    drive(search)
    took, best = search.best
    assert best.schedule == BEST
    assert took == seconds(best)
    assert search.fastest(1) == [best]


def test_with_far_fewer_evaluations_than_random():
    everything = SyntheticSpace().everything()
    assert len(everything) == 2592
    ours = [evaluations_until_best(drive(BeamSearch(task(), 4, seed=s))) for s in range(5)]
    randomly = [evaluations_until_best(random.Random(s).sample(everything, len(everything))) for s in range(5)]
    assert statistics.median(ours) * 5 < statistics.median(randomly)


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 9), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_never_twice_and_always_ends(width, batch, seed, patience):
    proposed = drive(BeamSearch(task(), width, seed, patience), batch=batch)
    signatures = [c.signature for c in proposed]
    assert len(set(signatures)) == len(signatures) < 2592
    assert len(proposed) >= len(SEEDS)


def test_seeds_come_first_and_repeat_nothing():
    search = BeamSearch(task([*SEEDS, *SEEDS, Schedule("magic", (), ()), of("dequant", UPCAST=2)]), 4)
    first = search.propose(16)
    assert [c.schedule for c in first] == [*SEEDS, of("dequant", UPCAST=2)]


def test_what_is_known_is_expanded_first_and_not_proposed():
    slow, fast = of("dequant"), of("factored", UPCAST=4, LOCAL=16)
    known = {s: seconds(SyntheticSpace().candidate(s)) for s in (slow, fast)}
    promising = of("factored", GROUP=16)
    search = BeamSearch(task([promising, fast], known=known, starts=[of("factored"), slow]), 1)
    assert search.best[1].schedule == fast
    around = [c.schedule for c in SyntheticSpace().children(fast)]
    first = search.propose(9)
    assert [c.schedule for c in first][:6] == [promising, *around]
    for c in first:
        search.observe(c, seconds(c))
    proposed = [c.schedule for c in (*first, *drive(search))]
    assert of("factored") in proposed
    assert not {fast, slow} & set(proposed)
    assert search.best[1].schedule == BEST


def test_a_short_search_around_what_is_known_gains_more_than_one_from_afar():
    near = of("factored", UPCAST=4, LOCAL=8, UNROLL=4)
    known = {near: seconds(SyntheticSpace().candidate(near))}
    around, afar = (
        BeamSearch(task([], known=known, starts=SEEDS), 4),
        BeamSearch(task(), 4),
    )
    for search in (around, afar):
        drive(search, limit=16)
    assert around.best[0] < min(known.values()) < afar.best[0]


def test_not_tuned_is_no_seed():
    assert BeamSearch(task([Schedule("dequant", (), None)]), 4).propose(8) == []


def test_without_seeds_it_is_over():
    search = BeamSearch(task([]), 4)
    assert search.propose(8) == []
    assert search.best is None
    assert search.fastest(3) == []


def test_when_every_seed_fails_it_is_over():
    search = BeamSearch(task(), 4)
    assert len(drive(search, cost=lambda c: None)) == len(SEEDS)
    assert search.best is None


def test_around_candidates_that_fail():
    """A third of the space does not compile; the best that does is found all the same."""

    def cost(c):
        return None if sum(c.signature[1:]) % 3 == 0 else seconds(c)

    working = [c for c in SyntheticSpace().everything() if cost(c) is not None]
    search = BeamSearch(task(), 6)
    proposed = drive(search, cost)
    assert any(cost(c) is None for c in proposed)
    assert search.best[0] <= 1.1 * min(map(seconds, working))


def test_a_good_seed_saves_most_of_the_work():
    near = of("factored", UPCAST=4, LOCAL=16, UNROLL=4, GROUP=2)
    cold, warm = (
        statistics.median(evaluations_until_best(drive(BeamSearch(task(s), 4, seed=i))) for i in range(5))
        for s in (SEEDS, (*SEEDS, near))
    )
    assert warm * 2 < cold


def test_noise_does_not_stop_it_early():
    rng = random.Random(8)
    search = BeamSearch(task(), 4)
    drive(search, lambda c: seconds(c) * rng.uniform(0.9, 1.1))
    assert seconds(search.best[1]) <= 1.3 * 1e-4


def test_equal_seeds_propose_equally():
    a, b, other = ([c.schedule for c in drive(BeamSearch(task(), 4, seed=s), limit=200)] for s in (3, 3, 4))
    assert a == b
    assert a != other


def test_a_wider_beam_looks_further():
    narrow, wide = (len(drive(BeamSearch(task(), width))) for width in (1, 8))
    assert narrow < wide


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_proposes_what_it_is_given_first_nothing_known_and_nothing_twice(name):
    known = {of("dequant", UPCAST=2): 1e-3}
    given = [of("factored", LOCAL=4), *SEEDS, of("dequant", UNROLL=8)]
    strategy = STRATEGIES[name](task(given[:1], known=known, starts=given[1:]))
    proposed = [c.schedule for c in drive(strategy, limit=400)]
    assert proposed[0] == given[0]
    assert set(given) <= set(proposed)
    assert len(set(proposed)) == len(proposed) > len(given)
    assert not set(known) & set(proposed)


@pytest.mark.parametrize("name", few_of(STRATEGIES, lambda name: name != "random"))
def test_every_strategy_ends_and_goes_on_where_all_fail(name):
    assert drive(STRATEGIES[name](task()), cost=lambda c: None, limit=5000)
    assert len(drive(STRATEGIES[name](task()), limit=5000)) < 2592


def test_a_random_search_does_not_depend_on_what_it_observes():
    a, b, other = (
        [c.schedule for c in drive(RandomSearch(task(), seed), cost, limit=100)]
        for seed, cost in ((1, seconds), (1, lambda c: None), (2, seconds))
    )
    assert a == b != other


def test_pure():
    """Neither clock nor store nor processes: nothing of the kind is even imported by it."""
    program = (
        "import sys, autotune.search.strategies; "
        "print(sorted({'sqlalchemy', 'multiprocessing.connection', 'autotune.trial', 'db.store'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
