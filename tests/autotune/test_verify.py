"""Verification on a real CPU device: what is right stays, what is wrong is withdrawn, what is stale is told."""

from dataclasses import replace
from pathlib import Path

import pytest

from autotune.session import Session
from autotune.trial import trial
from autotune.verify import Checked, verify
from db.codec import workload_digest
from db.lookup import Lookup
from db.records import Measurement, Opt, Outcome, Run, Schedule, Stage, Workload
from db.store import Store
from kernels.ops.registry import kernel_digest

W = Workload("linear", "Q8_0", 64, 64)
RIGHT = Schedule("factored", (("lanes", 4), ("words", 8)), (Opt("UPCAST", None, 2, "1"),))
ILLEGAL = replace(RIGHT, opts=(Opt("UPCAST", None, 7, "1"),))
RUN = Run("run1", "autotune sweep model.gguf", 3, 7.0)


@pytest.fixture
def fresh(device: Session, tmp_path: Path) -> Session:
    """The device with an empty store, in which RUN is started."""
    store = Store.open(tmp_path / "store.sqlite")
    store.start_run(RUN)
    return replace(device, store=store)


def final(s: Session, schedule: Schedule = RIGHT, w: Workload = W, kernel: str | None = None) -> Measurement:
    """Stores an accepted row, as a sweep would."""
    digest = kernel_digest(w) if kernel is None else kernel
    row = Measurement(w, s.info.target, schedule, digest, Stage.FINAL, Outcome.OK, (1e-5,) * 5, 1000, 1e-7, 1e-5)
    s.store.record(RUN.id, [row])
    return row


def check(s: Session, **asked: object) -> list[Checked]:
    return list(verify(s, "test", **asked))  # type: ignore[arg-type]


def serves(s: Session, w: Workload = W) -> Schedule | None:
    served = Lookup(s.store.where).exact(w, s.info.target, kernel_digest(w))
    return served and served.schedule


def test_an_empty_store_has_nothing_to_verify(fresh: Session) -> None:
    assert check(fresh) == []


def test_what_is_right_is_recorded_and_served_on(fresh: Session) -> None:
    final(fresh)
    (checked,) = check(fresh)
    assert (checked.status, checked.origin, checked.outcome) == ("right", "stored", Outcome.OK)
    assert checked.error is not None
    assert checked.error <= 1e-5
    verified = fresh.store.measurements(workload_digest(W))[-1].measurement
    assert (verified.stage, verified.samples) == (Stage.VERIFY, ())
    assert serves(fresh) == RIGHT


def test_what_no_longer_builds_is_withdrawn(fresh: Session) -> None:
    final(fresh)
    final(fresh, ILLEGAL)
    (checked,) = check(fresh)
    assert (checked.status, checked.outcome, checked.ok) == ("wrong", Outcome.ILLEGAL, False)
    assert checked.reason
    assert serves(fresh) == RIGHT  # the one before is served again


def test_what_computes_wrongly_is_withdrawn(fresh: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "tolerance", lambda w, variant: 1e-12)  # which no float32 sum can keep
    final(fresh)
    (checked,) = check(fresh)
    assert (checked.status, checked.outcome) == ("wrong", Outcome.WRONG_RESULT)
    assert serves(fresh) is None
    assert check(fresh) == []  # it is not served any more, so there is nothing to check


def test_what_is_stale_is_left_to_retune(fresh: Session) -> None:
    final(fresh, kernel="0ld")
    (checked,) = check(fresh)
    assert (checked.origin, checked.status, checked.ok) == ("stale", "stale", True)
    assert "autotune retune" in checked.reason
    assert serves(fresh) is None
    assert len(fresh.store.measurements(workload_digest(W))) == 1


def test_packaged_rows_for_the_kernels_that_there_are_are_checked_once(fresh: Session, tmp_path: Path) -> None:
    package = Store.open(tmp_path / "packaged.sqlite")
    package.start_run(RUN)
    shipped = replace(fresh, store=package)
    for row in (RIGHT, ILLEGAL):
        final(shipped, row, replace(W, m=1 + (row is ILLEGAL)))
    final(shipped, w=replace(W, n=96), kernel="0ld")
    final(fresh)  # the user's own, which is RIGHT, too
    rows = package.finals(fresh.info.target)
    assert len(rows) == 3
    found = [(c.workload.m, c.origin, c.status) for c in check(fresh, packaged=rows)]
    assert found == [(1, "stored", "right"), (2, "packaged", "wrong")]
    wrong = Lookup(fresh.store.where, package.where).exact(replace(W, m=2), fresh.info.target, kernel_digest(W))
    assert wrong is None
    assert check(fresh, packaged=rows, m=(3,)) == []


def test_what_has_no_kernel_here_is_skipped(fresh: Session) -> None:
    final(fresh, w=Workload("linear", "Q8_K", 64, 256), kernel="theirs")
    (checked,) = check(fresh)
    assert (checked.status, checked.ok) == ("skipped", True)
    assert "Q8_K" in checked.reason


def test_only_what_was_asked_for_is_checked(fresh: Session) -> None:
    tokens = replace(W, m=2)
    floats = Workload("linear", "F32", 5, 16)
    final(fresh)
    final(fresh, w=tokens)
    final(fresh, Schedule("dequant", (("lanes", 4),), ()), w=floats)
    assert {c.workload for c in check(fresh, formats=("F32",))} == {floats}
    assert {c.workload for c in check(fresh, m=(2,))} == {tokens}
    assert check(fresh, formats=("F32",), m=(2,)) == []


@pytest.mark.slow
def test_default_schedules_are_checked_on_request(fresh: Session) -> None:
    final(fresh)
    found = check(fresh, with_defaults=True)
    assert [c.origin for c in found].count("stored") == 1
    assert [c.origin for c in found].count("default") > 1
    assert all(c.ok for c in found)
