"""Many small lies in one export, drawn with a seed: each is refused in one short line, or stored as a claim."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db.errors import AutotuneError
from db.exchange import ExchangeError, export_payload, import_payload, load_json
from db.lookup import Lookup
from db.records import Outcome, Run, Stage
from db.store import Store

CASES = 120
NUMBERS = [0, -1, 2**48, 2**63, 10**30, -0.0, 5e-324, 1e-10, 0.5, 86401, 1e300, float("inf"), float("nan"), True, None]
DATES = ["2999-01-01T00:00:00.000000+00:00", "0000-00-00T00:00:00.000000+00:00", "2026-02-30T00:00:00.000000+00:00"]
TEXTS = ["", "../x", "\x1b[2J", "\ud800", "a" * 5000, "\0", "NaN", "'; DROP TABLE runs; --", "packaged", *DATES]
WRONG = replace(WORKLOAD, n=64)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def lie(payload: dict[str, Any], where: list[tuple[Any, ...]], rng: random.Random) -> None:
    *parents, last = rng.choice(where)
    holder: Any = payload
    for key in parents:
        holder = holder[key]
    odd = [
        rng.choice(NUMBERS),
        rng.choice(TEXTS),
        nested(rng.choice([3, 20, 900, 5000])),
        [0] * 20_000,
        {"\x1b": 1},
        [],
    ]
    match rng.randrange(4):
        case 0 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        case 1 if isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = rng.choice(odd)
        case 2:
            del holder[last]
        case _:
            holder[last] = rng.choice(odd)


def test_lies_are_refused_or_stored_as_claims_and_change_nothing_that_is_served(tmp_path: Path) -> None:
    rng, place = random.Random(1), tmp_path / "store.sqlite"
    other = opened(tmp_path / "theirs.sqlite", fact(samples=(1e-9,)), run=Run("theirs", "autotune sweep", 9, 9.0))
    other.record("theirs", [fact(workload=WRONG)])
    honest = export_payload(other)
    where = list(places(honest))
    wrong = fact(workload=WRONG, stage=Stage.VERIFY, outcome=Outcome.WRONG_RESULT, samples=())
    mine = schedule("mine", 8)
    store = opened(place, fact(schedule=mine, samples=(1.0,)), wrong)
    refusals = []
    for _ in range(CASES):
        payload = copy.deepcopy(honest)
        lie(payload, where, rng)
        try:
            import_payload(store, payload)
        except AutotuneError as e:
            refusals.append(str(e))
    assert CASES / 2 < len(refusals) < CASES
    assert all(len(said) < 500 and said.isprintable() for said in refusals)
    lookup = Lookup(place)
    found = lookup.exact(WORKLOAD, TARGET, KERNEL)
    assert found is not None
    assert found.schedule == mine
    assert lookup.exact(WRONG, TARGET, KERNEL) is None
    assert [w.row.measurement.schedule for w in store.finals()] == [mine]
    assert lookup.problems == ()


@pytest.fixture
def payload(tmp_path: Path) -> dict[str, Any]:
    return export_payload(opened(tmp_path / "theirs.sqlite", fact()))


def test_no_list_is_nested_deeper_than_any_export_has(payload: dict[str, Any], tmp_path: Path) -> None:
    store = Store.open(tmp_path / "fresh.sqlite")
    for depth in (14, 20, 500, 100_000):
        payload["finals"][0]["samples"] = nested(depth)
        with pytest.raises(ExchangeError, match=r"deeper than the 16|samples\[0\]"):
            import_payload(store, payload)
    with pytest.raises(ExchangeError, match="deep"):
        load_json("[" * 10**6)


def test_lists_and_objects_are_counted_before_memory_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.payload.MAX_PARTS", 9)
    with pytest.raises(ExchangeError, match="12 lists and objects are more than the 9"):
        load_json("[" + "{}," * 10 + "[]]")
    monkeypatch.setattr("db.payload.MAX_VALUES", 9)
    with pytest.raises(ExchangeError, match="10 values are more than the 9"):
        load_json("[" + "0," * 10 + "0]")


def test_one_kernel_has_one_final(payload: dict[str, Any], tmp_path: Path) -> None:
    payload["finals"].append(copy.deepcopy(payload["finals"][0]) | {"nbytes": 1})
    with pytest.raises(ExchangeError, match=r"finals\[1\]: linear Q4_K on METAL .* is given twice"):
        import_payload(Store.open(tmp_path / "fresh.sqlite"), payload)


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("samples", [0.0], "0.0 is not a number from 1e-09 to 86400"),
        ("samples", [-1e-3], "-0.001 is not a number from 1e-09 to 86400"),
        ("samples", [1e9], "1000000000.0 is not a number from 1e-09 to 86400"),
        ("created_at", "2999-01-01T00:00:00.000000+00:00", "is in the future, by more than the day that is allowed"),
        ("error", 2e-5, "2e-05 is not a number from 0 to 1e-05"),
        ("tolerance", 7, "7 is not a number from 0 to 1"),
    ],
)
def test_a_refusal_names_the_value_and_the_limit(
    payload: dict[str, Any], tmp_path: Path, field: str, value: object, limit: str
) -> None:
    payload["finals"][0][field] = value
    with pytest.raises(ExchangeError) as caught:
        import_payload(Store.open(tmp_path / "fresh.sqlite"), payload)
    assert limit in str(caught.value)


def test_rows_do_not_pass_for_those_of_a_packed_run(payload: dict[str, Any], tmp_path: Path) -> None:
    packed = Store.open(tmp_path / "packed.sqlite")
    import_payload(packed, payload, "packaged")
    payload["finals"][0]["samples"] = [1e-9]
    with pytest.raises(ExchangeError, match="never recorded"):
        import_payload(packed, payload)


def test_a_run_of_this_machine_is_not_stored_with_the_secrets_of_a_url(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.sqlite", run=replace(RUN, command="autotune sweep http://me:pw@h/m.gguf?token=x"))
    store.record(RUN.id, [fact()])
    text = json.dumps(export_payload(store))
    assert "http://***@h/m.gguf?token=***" in text
