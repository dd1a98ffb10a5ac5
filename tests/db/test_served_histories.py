"""What is served after any history of a kernel: all who ask agree with docs/trust.md, which is written as code here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.store_files import change
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db import served as kept
from db.codec import schedule_digest
from db.engine import writing
from db.forget import forget
from db.inserts import insert_measurements, insert_run
from db.lookup import Lookup
from db.records import Measurement, Outcome, Schedule, Stage
from db.store import Store

KERNELS = 150
SISTER = replace(TARGET, device="another", compute_units=3)
DATE = "2025-01-01T00:00:00.000000+00:00"
SCHEDULES = [schedule("factored", size) for size in (2, 4)]
OTHERS = [
    fact(error=1.0),
    fact(samples=(0.0,)),
    fact(simulated=True),
    fact(stage=Stage.BASELINE),
    *3 * [fact(stage=Stage.VERIFY, samples=())],
    fact(stage=Stage.VERIFY, samples=(), simulated=True),
    *2 * [fact(stage=Stage.VERIFY, samples=(), outcome=Outcome.WRONG_RESULT, error=1.0)],
    fact(stage=Stage.CONTENDER, samples=(), outcome=Outcome.TIMEOUT, error=None),
    fact(stage=Stage.DEPLOYED, error=None, tolerance=None),
    fact(stage=Stage.DEPLOYED, samples=(), outcome=Outcome.REJECTED, error=None, tolerance=None),
]
History = Sequence[tuple[str, Measurement]]
"""(origin, row), in the order in which the store got them."""


def history(rng: random.Random, n: int) -> History:
    """Finals, which are claims only for every second kernel, and what else this machine stores of them."""
    finals = rng.choice([["imported"], ["local", "imported", "packaged"]])
    rows = []
    for _ in range(rng.randint(1, 8)):
        final = rng.random() < 0.4
        row = replace(fact() if final else rng.choice(OTHERS), workload=replace(WORKLOAD, n=n))
        rows.append((rng.choice(finals) if final else "local", replace(row, schedule=rng.choice(SCHEDULES))))
    return rows


def failed(m: Measurement) -> bool:
    return m.outcome not in (Outcome.OK, Outcome.SLOW)


def right(m: Measurement) -> bool:
    return m.outcome is Outcome.OK and not m.simulated and (m.error or 0.0) <= (m.tolerance or 0.0)


def expected(rows: History) -> Schedule | None:
    """The newest sound final of this machine, or else the newest sound claim that was checked here."""
    own, claims = [], []
    for i, (origin, m) in enumerate(rows):
        others = [o for _, o in rows if o.schedule == m.schedule]
        later = [o for _, o in rows[i + 1 :] if o.schedule == m.schedule]
        if m.stage is not Stage.FINAL or not right(m) or not all(m.samples):
            continue
        if origin != "imported" and not any(map(failed, later)):
            own.append(m.schedule)
        checked = any(o.stage is Stage.VERIFY and right(o) for o in others)
        if origin == "imported" and checked and not any(map(failed, others)):
            claims.append(m.schedule)
    return next(reversed(own or claims), None)


def found_wrong(rows: History) -> set[str]:
    """Those whose latest launch by itself on this machine failed."""
    latest = {m.schedule: m for origin, m in rows if origin != "imported" and m.stage is not Stage.DEPLOYED}
    return {schedule_digest(s) for s, m in latest.items() if failed(m)}


def test_after_any_history_all_agree_on_what_is_served(tmp_path: Path) -> None:
    rng = random.Random(7)
    store = Store.open(tmp_path / "store.sqlite")
    histories = [history(rng, 64 * i) for i in range(1, KERNELS + 1)]
    with writing(store.engine) as connection:
        for origin in ("local", "imported", "packaged"):
            insert_run(connection, replace(RUN, id=origin), DATE, origin)
        for rows in histories:
            for origin, m in rows:
                insert_measurements(connection, [(origin, DATE, m)])
        assert not kept.stale(connection)
    finals = {w.row.measurement.workload: w.row.measurement.schedule for w in store.finals()}
    lookup, served = Lookup(tmp_path / "store.sqlite", tmp_path / "none"), 0
    for rows in histories:
        asked = rows[0][1].workload, TARGET, KERNEL
        exact, elsewhere = lookup.exact(*asked), lookup.same_arch(asked[0], SISTER, KERNEL)
        said = [exact and exact.schedule, elsewhere and elsewhere.schedule, finals.get(asked[0]), store.served(*asked)]
        assert said == [expected(rows)] * 4, rows
        assert lookup.found_wrong(*asked) == store.known_bad(*asked).keys() == found_wrong(rows), rows
        assert not exact or schedule_digest(exact.schedule) not in found_wrong(rows), rows
        served += exact is not None
    assert KERNELS / 5 < served < KERNELS


@pytest.mark.parametrize("failures", [False, True])
def test_what_is_forgotten_is_not_kept_for_lookups(tmp_path: Path, failures: bool) -> None:
    rng = random.Random(8)
    store = Store.open(tmp_path / "store.sqlite")
    with writing(store.engine) as connection:
        for origin in ("local", "imported", "packaged"):
            insert_run(connection, replace(RUN, id=origin), DATE, origin)
        for i in range(1, 41):
            insert_measurements(connection, [(origin, DATE, m) for origin, m in history(rng, 64 * i)])
    for subject in store.subjects()[::2]:
        forget(store, [subject], rng.choice([None, "local"]), failures)
        found = Lookup(store.where, tmp_path / "none").exact(*subject)
        assert (found and found.schedule) == store.served(*subject)
    assert store.stale() == 0


def test_what_another_program_spoils_is_told_and_mended_by_the_next_sweep(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store = opened(path, fact(), fact(workload=replace(WORKLOAD, n=64)), fact(workload=replace(WORKLOAD, n=128)))
    change(path, "DELETE FROM served")
    assert store.stale() == 3
    assert Lookup(path, tmp_path / "none").exact(WORKLOAD, TARGET, KERNEL) is None
    store.start_run(replace(RUN, id="next"))
    assert store.stale() == 0
    assert Lookup(path, tmp_path / "none").exact(WORKLOAD, TARGET, KERNEL) is not None
