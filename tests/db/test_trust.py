"""What an import may change of what is served: nothing that this machine knows better."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db.engine import writing
from db.exchange import export_payload, import_payload, write_sqlite
from db.lookup import Lookup
from db.records import Measurement, Outcome, Run, Schedule, Stage
from db.store import Store

OURS, THEIRS = schedule("ours", 8), schedule("theirs", 4)
FAULTS = [o for o in Outcome if o not in (Outcome.OK, Outcome.SLOW, Outcome.REJECTED)]
right = fact(schedule=THEIRS, stage=Stage.VERIFY, samples=())


@pytest.fixture
def path(place: Path) -> Path:
    return place


@pytest.fixture
def export(tmp_path: Path) -> dict[str, Any]:
    """What another machine of the same target tuned: THEIRS, in 1 µs."""
    row = fact(schedule=THEIRS, samples=(1e-6,))
    return export_payload(opened(tmp_path / "other.sqlite", row, run=Run("theirs", "autotune sweep", 9, 900.0)))


def dated(export: dict[str, Any], **later: float) -> dict[str, Any]:
    payload = copy.deepcopy(export)
    date = datetime.now(UTC) + timedelta(**later)
    payload["finals"][0]["created_at"] = date.isoformat(timespec="microseconds")
    return payload


def serves(path: Path) -> Schedule | None:
    """Of the paths that say what is served, which must agree."""
    found = Lookup(path).exact(WORKLOAD, TARGET, KERNEL)
    finals = [w.row.measurement.schedule for w in Store.open(path).finals()]
    assert finals == ([found.schedule] if found else [])
    assert Store.open(path).served(WORKLOAD, TARGET, KERNEL) == (found and found.schedule)
    return found and found.schedule


def test_an_import_is_no_effort_of_this_machine(path: Path, export: dict[str, Any]) -> None:
    store = opened(path)
    asked = WORKLOAD, TARGET, KERNEL, 0, 0.0
    import_payload(store, export)
    store.record(RUN.id, [right])
    assert serves(path) == THEIRS
    assert store.has_final(*asked) is None  # a sweep still tunes it
    store.record(RUN.id, [fact(schedule=OURS)])
    assert (found := store.has_final(*asked)) is not None
    assert found.schedule == OURS


def test_an_import_is_a_claim_until_it_is_found_right_here(path: Path, export: dict[str, Any]) -> None:
    store = opened(path)
    import_payload(store, export)
    assert serves(path) is None
    assert [c.row.measurement.schedule for c in store.claims(TARGET)] == [THEIRS]
    assert store.claims(replace(TARGET, compute_units=10)) == ()
    assert store.best_probes(WORKLOAD, TARGET, KERNEL, 9) == ()
    store.record(RUN.id, [right])
    assert serves(path) == THEIRS
    assert store.claims() == ()
    assert [m.schedule for m in store.best_probes(WORKLOAD, TARGET, KERNEL, 9)] == [THEIRS]  # a search begins there


@pytest.mark.parametrize(
    "other",
    [
        replace(right, target=replace(TARGET, compute_units=10)),
        replace(right, kernel_digest="other"),
        replace(right, schedule=OURS),
        replace(right, simulated=True),
        replace(right, error=1e-4),
        replace(right, error=None),
        replace(right, stage=Stage.BASELINE),
    ],
)
def test_what_does_not_prove_a_claim(path: Path, export: dict[str, Any], other: Measurement) -> None:
    store = opened(path)
    import_payload(store, export)
    store.record(RUN.id, [other])
    assert serves(path) is None
    assert Lookup(path).same_arch(WORKLOAD, replace(TARGET, device="M9"), KERNEL) is None
    assert Lookup(path).nearest(replace(WORKLOAD, n=4097), TARGET, KERNEL) is None


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("order", ["fault first", "claim first", "checked first"])
def test_what_was_found_wrong_here_is_not_served_whatever_is_imported(
    path: Path, export: dict[str, Any], fault: Outcome, order: str
) -> None:
    store = opened(path)
    wrong = replace(right, outcome=fault)
    steps: dict[str, Callable[[], object]] = {
        "fault": lambda: store.record(RUN.id, [wrong]),
        "claim": lambda: import_payload(store, dated(export, hours=20)),
        "checked": lambda: store.record(RUN.id, [right]),
    }
    for step in sorted(steps, key=lambda name: (not order.startswith(name), name)):
        steps[step]()
    assert serves(path) is None
    assert store.claims() == ()


@pytest.mark.parametrize("hours", [-9999, -1, 0, 23])
@pytest.mark.parametrize("first", [True, False])
def test_a_local_result_outranks_an_imported_one_whatever_its_date(
    path: Path, export: dict[str, Any], hours: int, first: bool
) -> None:
    store = opened(path, *([fact(schedule=OURS, samples=(1.0,))] if first else []))
    import_payload(store, dated(export, hours=hours))
    store.record(RUN.id, [right, *([] if first else [fact(schedule=OURS, samples=(1.0,))])])
    assert serves(path) == OURS
    store.record(RUN.id, [fact(schedule=OURS, stage=Stage.VERIFY, outcome=Outcome.WRONG_RESULT, samples=())])
    assert serves(path) == THEIRS


def test_a_clock_that_ran_ahead_does_not_hide_todays_result(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(path)
    with monkeypatch.context() as patch:
        patch.setattr("db.rows.now", lambda: "2031-01-01T00:00:00.000000+00:00")
        store.record(RUN.id, [fact(schedule=THEIRS)])
    store.record(RUN.id, [fact(schedule=OURS)])
    assert serves(path) == OURS
    store.record(RUN.id, [fact(schedule=THEIRS, stage=Stage.VERIFY, outcome=Outcome.CRASH, samples=())])
    store.record(RUN.id, [fact(schedule=OURS, stage=Stage.VERIFY, outcome=Outcome.CRASH, samples=())])
    assert serves(path) is None


def test_an_import_hides_no_fault_from_a_search(path: Path, export: dict[str, Any]) -> None:
    store = opened(path, replace(right, stage=Stage.PROBE, outcome=Outcome.CRASH))
    import_payload(store, dated(export, hours=20))
    assert len(store.known_bad(WORKLOAD, TARGET, KERNEL)) == 1


def test_an_older_store_keeps_its_own_and_believes_its_imports_no_more(path: Path, export: dict[str, Any]) -> None:
    store = opened(path, fact(schedule=OURS))
    other = replace(WORKLOAD, n=64)
    payload = copy.deepcopy(export)
    payload["finals"][0]["workload"]["n"] = other.n
    import_payload(store, payload)
    with writing(store.engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")
        for later in ("leases", "attempts", "rules", "served"):
            connection.exec_driver_sql(f"DROP TABLE {later}")
    Store.open(path)  # migrates it
    assert serves(path) == OURS
    assert Lookup(path).exact(other, TARGET, KERNEL) is None
    store.record(RUN.id, [replace(right, workload=other)])
    assert Lookup(path).exact(other, TARGET, KERNEL) is not None


def test_a_packed_store_is_served_as_it_is(tmp_path: Path, export: dict[str, Any]) -> None:
    write_sqlite(tmp_path / "packed.sqlite", export)
    found = Lookup(tmp_path / "none", tmp_path / "packed.sqlite").exact(WORKLOAD, TARGET, KERNEL)
    assert found is not None
    assert (found.schedule, found.origin) == (THEIRS, "packaged")


def test_a_row_is_served_only_within_the_limit_of_its_op(path: Path) -> None:
    lax = fact(schedule=THEIRS, error=5e-4, tolerance=1.0)
    near = replace(WORKLOAD, n=4097)
    opened(path, fact(schedule=OURS), lax, replace(lax, workload=near))
    lookup = Lookup(path, limit=lambda w, variant: 1e-3 if variant == "ours" else 1e-5)
    found = lookup.exact(WORKLOAD, TARGET, KERNEL)
    assert found is not None
    assert found.schedule == OURS  # the one before
    assert lookup.exact(near, TARGET, KERNEL) is None
    strict = Lookup(path, limit=lambda w, variant: 1e-9)
    assert strict.exact(WORKLOAD, TARGET, KERNEL) is None
    assert strict.same_arch(WORKLOAD, replace(TARGET, device="M9"), KERNEL) is None
    assert strict.problems == ()
