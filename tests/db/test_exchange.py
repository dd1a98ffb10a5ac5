from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.full_disk import room_for
from support.measurement_strategies import FINALS
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db.exchange import Counts, ExchangeError, export_payload, import_payload, load_json, write_sqlite
from db.lookup import Lookup
from db.records import Measurement, Outcome, Run, Schedule, Stage, Target
from db.store import Store, StoreError

HEURISTIC = fact(schedule=Schedule("heuristic"), stage=Stage.BASELINE, samples=(1e-3,))


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """Two served kernels; besides them, what an export leaves out."""
    store = opened(tmp_path / "source.sqlite", HEURISTIC, replace(HEURISTIC, outcome=Outcome.TIMEOUT, samples=()))
    store.record(RUN.id, [fact(schedule=schedule("old")), fact(stage=Stage.PROBE, schedule=schedule("probed"))])
    store.record(RUN.id, [fact(schedule=schedule("v", 8, 4))])
    store.start_run(Run("run2", "autotune sweep other.gguf", 8, 90.5, (("driver", "555"), ("tinygrad", "0.14.0"))))
    store.record(
        "run2",
        [
            fact(
                workload=replace(WORKLOAD, op="moe", extra=(("experts", 8), ("kind", "x"))),
                target=Target("CPU", "x86_64", "AMD EPYC™ 9", 2),
            )
        ],
    )
    return store


@pytest.fixture
def fresh(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "fresh.sqlite")


@pytest.fixture
def there(place: Path) -> Store:
    return Store.open(place)


def rows(store: Store) -> dict[str, int]:
    return dict(store.stats().rows)


def test_export_holds_what_is_served_and_its_sound_baselines(source: Store) -> None:
    payload = export_payload(source)
    assert [run["id"] for run in payload["runs"]] == ["run1", "run2"]
    assert [f["schedule"]["variant"] for f in payload["finals"]] == ["factored", "v"]
    assert [len(f["baselines"]) for f in payload["finals"]] == [0, 1]
    assert (
        len(export_payload(source, target=TARGET)["finals"]) == len(export_payload(source, op="linear")["finals"]) == 1
    )
    assert export_payload(source, format="F16")["runs"] == []


def test_a_round_trip_is_exact_and_doing_it_twice_adds_nothing(source: Store, there: Store) -> None:
    payload = export_payload(source)
    travelled = load_json(json.dumps(payload))
    assert import_payload(there, travelled) == Counts(runs=2, measurements=3, known=0)
    assert export_payload(there, claims=True) == payload
    assert {c.row.origin for c in there.claims()} == {"imported"}
    before = rows(there)
    assert import_payload(there, travelled) == Counts(runs=0, measurements=0, known=3)
    assert import_payload(source, travelled) == Counts(runs=0, measurements=0, known=3)
    assert rows(there) == before
    assert {w.row.origin for w in source.finals()} == {"local"}
    assert source.claims() == ()


def put(payload: Any, path: str, value: Any) -> None:
    """Sets the field of a path such as finals[0].schedule.opts[1].op."""
    *parents, last = [int(p) if p.isdigit() else p for p in path.replace("[", ".").replace("]", "").split(".")]
    for part in parents:
        payload = payload[part]
    payload[last] = value


HUGE = 10**400
BAD = [
    ("format", "tinygrad"),
    ("version", 4),
    ("version", True),
    ("runs", {}),
    ("runs[0].id", "run 1"),
    ("runs[1].id", "run1"),
    ("runs[0].command", "\x1b[2J"),
    ("runs[0].beam_width", -1),
    ("runs[0].budget_seconds", float("inf")),
    ("runs[0].started_at", "2025-02-30T00:00:00.000000+00:00"),
    ("runs[0].versions.tinygrad", 1),
    ("finals", None),
    ("finals[0]", 3),
    ("finals[0].others", {}),
    ("rules", {}),
    ("finals[0].run", "run3"),
    ("finals[0].run", ["run1"]),
    ("finals[1].workload.n", 0),
    ("finals[1].workload.k", 4096.0),
    ("finals[1].workload.op", "../x"),
    ("finals[0].workload.extra", 5),
    ("finals[1].target.device", "x\n"),
    ("finals[1].target.compute_units", 2**40),
    ("finals[1].kernel_digest", ""),
    ("finals[1].schedule.variant", "os.system('x')"),
    ("finals[1].schedule.params", []),
    ("finals[1].schedule.opts", "LOCAL"),
    ("finals[1].schedule.opts[0].op", "__import__"),
    ("finals[1].schedule.opts[1].axis", HUGE),
    ("finals[1].schedule.opts[1].range", "opt999"),
    ("finals[1].samples", []),
    ("finals[1].samples[1]", float("nan")),
    ("finals[1].samples[2]", -1e-9),
    ("finals[1].samples[0]", 0),
    ("finals[1].samples[0]", 5e-324),
    ("finals[1].samples[0]", float("inf")),
    ("finals[1].samples[0]", 1e6),
    ("finals[1].samples[0]", HUGE),
    ("finals[1].samples[0]", True),
    ("finals[1].samples[0]", "1"),
    ("finals[1].nbytes", 2**60),
    ("finals[1].nbytes", 1.5),
    ("finals[1].error", 1e-4),
    ("finals[1].error", None),
    ("finals[1].tolerance", float("inf")),
    ("finals[1].tolerance", 50),
    ("finals[1].clock", "\ud800"),
    ("finals[1].created_at", "2999-01-01T00:00:00.000000+00:00"),
    ("finals[1].created_at", "yesterday"),
    ("finals[1].baselines", None),
    ("finals[1].baselines[0].samples[0]", None),
    ("finals[1].baselines[0].schedule.variant", ""),
]


@pytest.mark.parametrize(("path", "value"), BAD, ids=[f"{p}={v!r:.12}" for p, v in BAD])
def test_a_bad_field_is_named_and_nothing_is_written(source: Store, fresh: Store, path: str, value: object) -> None:
    payload = copy.deepcopy(export_payload(source))
    put(payload, path, value)
    with pytest.raises(ExchangeError) as caught:
        import_payload(fresh, payload)
    assert str(caught.value).startswith(f"{path}:")
    assert len(str(caught.value)) < 400
    assert set(rows(fresh).values()) == {0}


OTHER = {"schedule": {"variant": "v", "opts": []}, "seconds": 1e-5}
RULE = {
    "backend": "METAL",
    "arch": "",
    "class": {"op": "linear"},
    "schedules": [OTHER["schedule"]],
    "why": "it is fast",
}
BAD_FOR_PACKING = [
    ("finals[0].others[0].seconds", 0),
    ("finals[0].others[0].schedule.variant", "../x"),
    ("finals[0].others[0].schedule.opts", ["LOCAL"]),
    ("rules[0].backend", 5),
    ("rules[0].class", []),
    ("rules[0].schedules", []),
    ("rules[0].why", "\x1b[2J"),
]


@pytest.mark.parametrize(("path", "value"), BAD_FOR_PACKING)
def test_what_only_a_pack_reads_is_checked_too(source: Store, fresh: Store, path: str, value: object) -> None:
    payload = copy.deepcopy({**export_payload(source), "rules": [RULE]})
    payload["finals"][0]["others"] = [copy.deepcopy(OTHER)]
    assert import_payload(fresh, payload).runs == 2
    put(payload, path, value)
    with pytest.raises(ExchangeError, match=rf"^{re.escape(path.partition('.schedule')[0])}"):
        import_payload(fresh, payload)


@pytest.mark.parametrize(
    "where", ["", "runs[0]", "finals[1]", "finals[1].workload", "finals[1].schedule.opts[0]", "finals[1].baselines[0]"]
)
@pytest.mark.parametrize("change", [lambda d: d.update(served=True), lambda d: d.pop(next(iter(d)))])
def test_fields_are_neither_missing_nor_unknown(
    source: Store, fresh: Store, where: str, change: Callable[[Any], object]
) -> None:
    payload: Any = copy.deepcopy(export_payload(source))
    holder = payload
    for part in filter(None, where.replace("[", ".").replace("]", "").split(".")):
        holder = holder[int(part) if part.isdigit() else part]
    change(holder)
    with pytest.raises(ExchangeError, match=r"missing|unknown"):
        import_payload(fresh, payload)
    assert set(rows(fresh).values()) == {0}


def test_a_run_cannot_be_impersonated(source: Store, there: Store) -> None:
    payload = export_payload(source)
    forged = copy.deepcopy(payload)
    forged["finals"][1]["samples"] = [1e-9]
    with pytest.raises(ExchangeError, match=r"finals\[1\].*never recorded"):
        import_payload(source, forged)
    import_payload(there, payload)
    forged["runs"][0]["beam_width"] = 99
    before = rows(there)
    with pytest.raises(ExchangeError, match=r"runs\[0\].beam_width"):
        import_payload(there, forged)
    assert rows(there) == before


def test_a_sqlite_file_is_one_file_that_lookups_read(source: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "opts.sqlite"
    path.write_bytes(b"what was here")
    payload = export_payload(source)
    assert write_sqlite(path, payload) == Counts(2, 3, 0)
    assert list(path.parent.iterdir()) == [path]
    path.chmod(0o444)
    found = Lookup(tmp_path / "none", path).exact(WORKLOAD, TARGET, KERNEL)
    assert found is not None
    assert (found.schedule, found.origin) == (schedule("v", 8, 4), "packaged")
    assert list(path.parent.iterdir()) == [path]


def test_a_sqlite_file_is_not_written_from_bad_data_or_over_a_store_in_use(source: Store, tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with pytest.raises(ExchangeError):
        write_sqlite(path, {})
    assert not path.exists()
    Path(f"{path}-wal").touch()
    with pytest.raises(StoreError, match="in use"):
        write_sqlite(path, export_payload(source))
    path.mkdir()
    Path(f"{path}-wal").unlink()
    with pytest.raises(StoreError, match=r"x\.sqlite"):
        write_sqlite(path, export_payload(source))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.sqlite", "x.sqlite"]


# properties

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@FEW
@given(st.lists(FINALS, max_size=6, unique=True))
def test_any_store_survives_the_journey(tmp_path_factory: pytest.TempPathFactory, finals: list[Measurement]) -> None:
    folder = tmp_path_factory.mktemp("journey")
    here = opened(folder / "here.sqlite")
    here.record(RUN.id, finals)
    payload = export_payload(here)
    there = Store.open(folder / "there.sqlite")
    import_payload(there, load_json(json.dumps(payload)))
    assert export_payload(there, claims=True) == payload
    assert there.finals() == ()
    assert {c.row.measurement for c in there.claims()} == {w.row.measurement for w in here.finals()}


@settings(FEW, max_examples=150)
@given(path=st.sampled_from([p for p, _ in BAD]), value=JSON)
def test_arbitrary_json_is_imported_whole_or_refused_whole(
    source: Store, fresh: Store, path: str, value: object
) -> None:
    payload = copy.deepcopy(export_payload(source))
    put(payload, path, value)
    before = rows(fresh)
    try:
        import_payload(fresh, payload)
    except ExchangeError:
        assert rows(fresh) == before


@settings(FEW, max_examples=100)
@given(value=JSON)
def test_arbitrary_documents_are_refused(fresh: Store, value: object) -> None:
    with pytest.raises(ExchangeError):
        import_payload(fresh, value)


def test_a_disk_that_is_full_at_any_point_is_a_store_error_and_leaves_nothing(source: Store, tmp_path: Path) -> None:
    payload, file = export_payload(source), tmp_path / "full" / "copy.sqlite"
    file.parent.mkdir()
    said = []

    def fits(nbytes: int) -> bool:
        try:
            with room_for(nbytes):
                write_sqlite(file, payload)
        except StoreError as error:
            said.append(str(error))
            assert list(file.parent.iterdir()) == []
            return False
        file.unlink()
        return True

    low, high = 0, 1 << 20
    while high - low > 256:  # towards the last thing that is written
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    assert not any(fits(nbytes) for nbytes in range(low - 4096, low, 512))
    assert all(f"{file}: " in message for message in said)  # not the name of a draft
