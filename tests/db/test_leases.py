from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db.codec import schedule_digest
from db.leases import Leases
from db.store import Store

KEY = WORKLOAD, TARGET, KERNEL
OTHER = replace(WORKLOAD, m=8), TARGET, KERNEL


@pytest.fixture
def store(place: Path) -> Store:
    return Store.open(place)


def test_a_kernel_has_one_owner_until_it_is_given_back(store: Store) -> None:
    a, b = Leases(store, "a"), Leases(store, "b")
    assert a.take(*KEY) is None
    assert a.take(*KEY) is None
    assert b.take(*KEY) == "a"
    assert b.take(*OTHER) is None
    b.release(*KEY)
    assert b.take(*KEY) == "a"
    a.release(*KEY)
    assert b.take(*KEY) is None
    assert a.take(*KEY) == "b"


def test_a_lease_of_a_dead_owner_is_taken_over_and_a_late_release_is_not_heard(store: Store) -> None:
    dead, heir = Leases(store, "dead"), Leases(store, "heir", dead=lambda owner: owner == "dead")
    assert dead.take(*KEY) is None
    assert heir.take(*KEY) is None
    dead.release(*KEY)
    assert Leases(store, "third").take(*KEY) == "heir"


def test_a_lease_ends_by_itself_unless_it_is_renewed(store: Store) -> None:
    lapsed, other = Leases(store, "lapsed", lease_seconds=0.0), Leases(store, "other")
    assert lapsed.take(*KEY) is None
    assert other.take(*KEY) is None
    other.release(*KEY)
    assert lapsed.take(*KEY) is None
    assert Leases(store, "lapsed").take(*KEY) is None
    assert other.take(*KEY) == "lapsed"


def test_nobody_waits_for_a_lease_that_is_longer_than_any(store: Store) -> None:
    """Its owner's clock was ahead by a year, or the date is damaged."""
    ahead, other = Leases(store, "ahead", lease_seconds=365 * 86400.0), Leases(store, "other")
    assert ahead.take(*KEY) is None
    assert other.take(*KEY) is None


def test_of_many_that_ask_at_once_one_gets_it(store: Store) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda i: Leases(store, f"owner {i}").take(*KEY), range(8)))
    assert answers.count(None) == 1
    assert set(answers) == {None, f"owner {answers.index(None)}"}


def test_attempts_are_counted_until_a_row_says_how_they_ended(store: Store) -> None:
    one, two = schedule("factored", 8), schedule("factored", 4)
    store.start_run(RUN)
    for s in (one, two, one):
        store.attempt(*KEY, s)
    assert store.attempts(*KEY) == {schedule_digest(one): 2, schedule_digest(two): 1}
    assert store.attempts(*OTHER) == {}
    store.record(RUN.id, [fact(schedule=one)])
    assert store.attempts(*KEY) == {schedule_digest(two): 1}


def test_what_was_measured_since_a_schedule_was_accepted(place: Path) -> None:
    from db.records import Stage

    before, after = (fact(stage=Stage.PROBE, schedule=schedule("v", i)) for i in (1, 2))
    store = opened(place, before, fact(), after)
    assert [r.measurement for r in store.since_final(*KEY)] == [after]
    assert store.since_final(*OTHER) == ()
