"""What a model's pass said of a schedule: a rejected final is not served, and counts as searched."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db.lookup import Lookup
from db.records import Measurement, Outcome, Schedule, Stage
from db.store import Store

ASKED = WORKLOAD, TARGET, KERNEL
OLD, NEW = schedule("factored", 4), schedule("factored", 8)


def said(outcome: Outcome, s: Schedule = NEW, **changes: Any) -> Measurement:
    return fact(schedule=s, stage=Stage.DEPLOYED, outcome=outcome, samples=(2e-3,) * 5, **changes)


def served(path: Path, **options: Any) -> Schedule | None:
    found = Lookup(path, **options).exact(*ASKED)
    return found and found.schedule


def undecided(store: Store) -> list[Schedule]:
    return [w.row.measurement.schedule for w in store.undecided(TARGET)]


def test_a_rejected_final_gives_way_to_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = opened(path, fact(schedule=OLD), said(Outcome.OK, OLD), fact(schedule=NEW))
    assert (served(path), undecided(store)) == (NEW, [NEW])
    store.record(RUN.id, [said(Outcome.REJECTED)])
    assert (served(path), undecided(store)) == (OLD, [])
    assert [w.row.measurement.schedule for w in store.finals()] == [OLD]


def test_a_kept_final_is_served_and_decided(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = opened(path, fact(schedule=NEW), said(Outcome.OK))
    assert (served(path), undecided(store)) == (NEW, [])


def test_what_a_later_search_finds_again_is_served_until_it_is_timed_again(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = opened(path, fact(schedule=NEW), said(Outcome.REJECTED), fact(schedule=NEW))
    assert (served(path), undecided(store)) == (NEW, [NEW])


def test_a_rejected_final_counts_as_searched_and_its_schedule_as_right(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.sqlite", fact(schedule=NEW), said(Outcome.REJECTED))
    assert store.has_final(*ASKED, RUN.beam_width, RUN.budget_seconds) == fact(schedule=NEW)
    assert store.known_bad(*ASKED) == {}
    assert Lookup(store.where).found_wrong(*ASKED) == frozenset()


def test_seconds_of_a_pass_are_not_taken_for_those_of_a_launch(tmp_path: Path) -> None:
    probes = [fact(schedule=s, stage=Stage.PROBE, samples=(x,) * 3) for s, x in ((NEW, 1e-5), (OLD, 2e-5))]
    store = opened(tmp_path / "s.sqlite", *probes, said(Outcome.OK), said(Outcome.OK, OLD))
    assert [m.samples[0] for m in store.best_probes(*ASKED, 4)] == [1e-5, 2e-5]


def test_a_lookup_can_pass_over_what_the_users_store_has(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    opened(path, fact(schedule=OLD), fact(schedule=NEW))
    assert served(path, without=[(WORKLOAD, TARGET, NEW)]) == OLD
    assert served(path, without=[(WORKLOAD, TARGET, NEW), (WORKLOAD, TARGET, OLD)]) is None
    assert served(path, without=[(WORKLOAD, replace(TARGET, compute_units=8), NEW)]) == NEW


def test_a_fault_of_a_kept_schedule_still_withdraws_it(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    wrong = fact(schedule=NEW, stage=Stage.VERIFY, outcome=Outcome.WRONG_RESULT, samples=(), reason="made up")
    store = opened(path, fact(schedule=NEW), said(Outcome.OK), wrong)
    assert served(path) is None
    assert store.has_final(*ASKED, RUN.beam_width, RUN.budget_seconds) is None
