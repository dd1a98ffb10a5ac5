"""Stored schedules after an upgrade, on a real CPU: replayed, timed with the baselines, and the fastest accepted."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cli import run
from support.cpu_session import use_cpu

from autotune.demo import write_demo_model
from autotune.retune import Retune, Retuned
from autotune.session import Session
from db.codec import workload_digest
from db.lookup import Lookup
from db.records import Measurement, Opt, Outcome, Run, Schedule, Stage, Workload
from db.store import Store
from kernels.ops.registry import kernel_digest

W = Workload("linear", "Q8_0", 64, 64)
WIDE = replace(W, n=128)
RIGHT = Schedule("factored", (("lanes", 4), ("words", 8)), (Opt("UPCAST", None, 2, "1"),))
OTHER = replace(RIGHT, opts=(Opt("UPCAST", None, 4, "1"),))
ILLEGAL = replace(RIGHT, opts=(Opt("UPCAST", None, 7, "1"),))
RUN = Run("run1", "autotune sweep model.gguf", 3, 7.0)


@pytest.fixture
def fresh(device: Session, tmp_path: Path) -> Session:
    """The device with an empty store, in which RUN is started, of today's versions."""
    store = Store.open(tmp_path / "store.sqlite")
    store.start_run(replace(RUN, versions=device.info.versions))
    return replace(device, store=store)


def put(s: Session, found: Schedule = RIGHT, w: Workload = W, kernel: str = "0ld", **changes: Any) -> None:
    row = Measurement(w, s.info.target, found, kernel, Stage.FINAL, Outcome.OK, (1e-5,) * 5, 1000, 1e-7, 1e-5)
    s.store.record(RUN.id, [replace(row, **changes)])


def retuned(s: Session, **asked: Any) -> list[Retuned]:
    return list(Retune(s, "test", **asked).rows())


def serves(s: Session, w: Workload = W) -> Schedule | None:
    served = Lookup(s.store.where).exact(w, s.info.target, kernel_digest(w))
    return served and served.schedule


def replayed(s: Session, w: Workload = W) -> set[Schedule]:
    """What was run for the present kernel."""
    rows = [r.measurement for r in s.store.measurements(workload_digest(w))]
    return {m.schedule for m in rows if m.kernel_digest == kernel_digest(w)}


def test_what_is_stale_is_accepted_with_the_effort_it_was_found_with(
    fresh: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []  # devices that no sweep may time on meanwhile
    monkeypatch.setattr("autotune.retune.alone", lambda device: nullcontext(held.append(device)))
    put(fresh)
    assert serves(fresh) is None
    (row,) = retuned(fresh)
    assert held == [fresh.choice.device]
    assert (row.ok, row.why, row.before) == (True, "its kernel's source changed", 1e-5)
    assert row.seconds
    assert row.baseline_seconds
    assert serves(fresh) == row.schedule
    digest = kernel_digest(W)
    assert fresh.store.has_final(W, fresh.info.target, digest, RUN.beam_width, RUN.budget_seconds) is not None
    (winner,) = [w for w in fresh.store.finals() if w.row.measurement.kernel_digest == digest]
    assert winner.baselines  # so that its gain is known
    assert retuned(fresh) == []  # it is not stale any more


def test_the_last_accepted_and_the_fastest_of_all_versions_are_replayed(fresh: Session) -> None:
    slow = replace(RIGHT, opts=(Opt("UPCAST", None, 8, "1"),))
    put(fresh, slow, kernel="0lder", stage=Stage.PROBE, samples=(9e-5,))
    put(fresh, OTHER, kernel="0lder", stage=Stage.PROBE, samples=(1e-6,))
    put(fresh, RIGHT)
    retuned(fresh, top=2)
    assert {RIGHT, OTHER} <= replayed(fresh)
    assert slow not in replayed(fresh)


def test_what_fails_now_is_recorded_and_a_baseline_is_accepted(fresh: Session) -> None:
    put(fresh, ILLEGAL)
    (row,) = retuned(fresh)
    assert (row.status, row.same) == ("baseline wins", False)
    known_bad = fresh.store.known_bad(W, fresh.info.target, kernel_digest(W))
    assert Outcome.ILLEGAL in {outcome for outcome, _ in known_bad.values()}


def test_what_was_found_wrong_for_this_version_is_not_replayed(fresh: Session) -> None:
    put(fresh, OTHER)
    wrong = {"kernel": kernel_digest(W), "stage": Stage.VERIFY, "outcome": Outcome.WRONG_RESULT, "samples": ()}
    put(fresh, OTHER, **wrong, reason="found wrong")
    (row,) = retuned(fresh)
    assert row.schedule != OTHER
    assert serves(fresh) != OTHER


def test_after_another_driver_and_on_request_what_is_served_is_replayed(fresh: Session) -> None:
    fresh.store.start_run(replace(RUN, id="old", versions=(("driver", "1.0"), ("tinygrad", "0.14.0"))))
    put(fresh, kernel=kernel_digest(W))
    row = fresh.store.finals()[0].row.measurement
    fresh.store.record("old", [replace(row, workload=WIDE, kernel_digest=kernel_digest(WIDE))])
    found = Retune(fresh, "test")
    assert list(found.todo) == [WIDE]
    assert found.todo[WIDE].startswith("driver was 1.0, is ")
    assert set(Retune(fresh, "test", every=True).todo) == {W, WIDE}
    assert set(Retune(fresh, "test", workloads=[W], every=True).todo) == {W}


def test_what_a_models_pass_rejected_is_not_replayed(fresh: Session) -> None:
    put(fresh, OTHER)
    put(fresh, OTHER, stage=Stage.DEPLOYED, outcome=Outcome.REJECTED, samples=())
    put(fresh, RIGHT)
    retuned(fresh)
    assert RIGHT in replayed(fresh)
    assert OTHER not in replayed(fresh)


def test_what_has_no_kernel_here_is_skipped(fresh: Session) -> None:
    put(fresh, w=Workload("linear", "Q8_K", 64, 256))
    (row,) = retuned(fresh)
    assert (row.status, row.ok) == ("skipped", True)
    assert "Q8_K" in row.reason


@pytest.mark.slow
def test_the_command_tells_what_became_of_it(device: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cpu(monkeypatch)
    db = str(tmp_path / "store.sqlite")
    store = Store.open(db)
    store.start_run(RUN)
    put(replace(device, store=store))
    model = str(write_demo_model(tmp_path / "demo.gguf"))
    assert "nothing is stale" in run("retune", model, "--db", db).stdout
    done = run("retune", "--db", db, "--workers", "1", "--json")
    workload, summary = map(json.loads, done.stdout.splitlines())
    assert (done.exit_code, workload["why_stale"]) == (0, "its kernel's source changed")
    assert sum(summary["statuses"].values()) == 1
    assert "nothing is stale" in run("retune", "--db", db).stdout
