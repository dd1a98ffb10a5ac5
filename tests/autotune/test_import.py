"""`autotune import` on a real CPU device: claims are checked before they are served; an interruption loses nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cli import run
from support.cpu_session import use_cpu

from autotune.claims import MAX_OPERAND_NBYTES, why_not
from autotune.session import Session
from autotune.transfer import claims_of
from autotune.verify import verify, verify_claims
from db.exchange import export_payload, import_payload
from db.lookup import Lookup
from db.payload import parse
from db.records import Measurement, Opt, Outcome, Run, Schedule, Stage, Workload
from db.store import Store
from kernels.ops.registry import kernel_digest

W = Workload("linear", "Q8_0", 64, 64)
WIDE = replace(W, n=128)
RIGHT = Schedule("factored", (("lanes", 4), ("words", 8)), (Opt("UPCAST", None, 2, "1"),))
ILLEGAL = replace(RIGHT, opts=(Opt("UPCAST", None, 7, "1"),))
NO_VARIANT = replace(RIGHT, variant="of-a-newer-version")
NO_PARAMS = replace(RIGHT, params=(("lanes", 3), ("words", 8)))
HUGE_CODE = replace(RIGHT, opts=(Opt("UPCAST", 0, 16), Opt("UPCAST", 0, 4), Opt("UNROLL", 0, 8), Opt("UNROLL", 0, 4)))


@pytest.fixture
def fresh(device: Session, tmp_path: Path) -> Session:
    return replace(device, store=Store.open(tmp_path / "store.sqlite"))


def final(s: Session, schedule: Schedule = RIGHT, w: Workload = W, **changes: Any) -> Measurement:
    row = Measurement(w, s.info.target, schedule, kernel_digest(w), Stage.FINAL, Outcome.OK, (1e-9,), 9, 1e-7, 1e-5)
    return replace(row, **changes)


def exported(folder: Path, *rows: Measurement) -> dict[str, Any]:
    """What another machine of this target exports, of a run with more effort than anyone has."""
    store = Store.open(folder / "theirs.sqlite")
    store.start_run(Run("theirs", "autotune sweep", 99, 1e9))
    store.record("theirs", rows)
    return export_payload(store)


def serves(s: Session, w: Workload = W) -> Schedule | None:
    served = Lookup(s.store.where).exact(w, s.info.target, kernel_digest(w))
    return served and served.schedule


def check(s: Session, payload: dict[str, Any]) -> list[tuple[str, Outcome | None]]:
    import_payload(s.store, payload)
    return [(c.status, c.outcome) for c in verify_claims(s, "test", claims_of(s.store, parse(payload)))]


def test_what_is_right_is_served_and_checked_once(fresh: Session, tmp_path: Path) -> None:
    payload = exported(tmp_path, final(fresh), final(fresh, w=WIDE))
    assert check(fresh, payload) == [("right", Outcome.OK)] * 2
    assert (serves(fresh), serves(fresh, WIDE)) == (RIGHT, RIGHT)
    assert check(fresh, payload) == []


@pytest.mark.parametrize("schedule", [ILLEGAL, NO_VARIANT, NO_PARAMS, HUGE_CODE], ids=lambda s: s.variant)
def test_what_cannot_be_built_within_the_limits_is_never_served(
    fresh: Session, tmp_path: Path, schedule: Schedule
) -> None:
    payload = exported(tmp_path, final(fresh, schedule))
    ((status, outcome),) = check(fresh, payload)
    assert (status, outcome is Outcome.OK) == ("wrong", False)
    assert serves(fresh) is None
    assert check(fresh, payload) == []  # what was found wrong is not tried again


def test_what_computes_wrongly_is_never_served(fresh: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("autotune.trial.trial.tolerance", lambda w, variant: 1e-12)  # which no float32 sum can keep
        assert check(fresh, exported(tmp_path, final(fresh))) == [("wrong", Outcome.WRONG_RESULT)]
    assert serves(fresh) is None


@pytest.mark.slow
def test_an_interrupted_check_goes_on_where_it_was(fresh: Session, tmp_path: Path) -> None:
    payload = exported(tmp_path, final(fresh), final(fresh, w=WIDE))
    import_payload(fresh.store, payload)
    checks = verify_claims(fresh, "test", claims_of(fresh.store, parse(payload)))
    first = next(checks).workload
    checks.close()  # type: ignore[attr-defined]
    assert serves(fresh, first) == RIGHT
    assert [c.row.measurement.workload for c in fresh.store.claims()] == [w for w in (W, WIDE) if w != first]
    assert len(check(fresh, payload)) == 1
    assert serves(fresh) == serves(fresh, WIDE) == RIGHT


def test_verify_checks_claims_and_tells_of_those_of_other_kernels(fresh: Session, tmp_path: Path) -> None:
    payload = exported(tmp_path, final(fresh), final(fresh, w=WIDE, kernel_digest="0ld"))
    import_payload(fresh.store, payload)
    found = {c.workload: (c.origin, c.status) for c in verify(fresh, "test")}
    assert found == {W: ("claim", "right"), WIDE: ("stale", "stale")}
    assert (serves(fresh), serves(fresh, WIDE)) == (RIGHT, None)


@pytest.mark.slow
def test_the_claims_of_another_device_are_checked_from_a_file_and_not_stored(
    device: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cpu(monkeypatch)
    monkeypatch.setenv("AUTOTUNE_DB", str(tmp_path / "mine.sqlite"))
    file, other = tmp_path / "opts.json", replace(device.info.target, device="another machine", compute_units=99)
    gpu = replace(other, backend="CUDA", arch="sm_90")
    rows = final(device, target=other), final(device, ILLEGAL, WIDE, target=other), final(device, target=gpu)
    file.write_text(json.dumps(exported(tmp_path, *rows)))
    done = run("verify", "--file", str(file), "--workers", "1")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-2:] == [
        "2 of 2 schedules checked, 1 not right",
        "1 not checked: for another architecture",
    ]
    assert not (tmp_path / "mine.sqlite").exists()


def test_why_a_claim_cannot_be_checked(device: Session) -> None:
    here = device.info.target
    assert why_not(final(device), here) is None
    elsewhere = replace(here, compute_units=here.compute_units + 1)
    assert why_not(final(device, target=elsewhere), here) == "for another target"
    for w in (replace(W, op="rm-rf"), replace(W, format="NOPE"), replace(W, epilogue="x"), replace(W, k=63)):
        assert "without kernels" in str(why_not(replace(final(device), workload=w), here))
    assert "another version" in str(why_not(final(device, kernel_digest="nonsense"), here))
    assert "too large" in str(why_not(final(device, w=replace(W, n=MAX_OPERAND_NBYTES)), here))
    assert "less exact" in str(why_not(final(device, error=0.9, tolerance=1.0), here))
    assert why_not(final(device, error=1e-7, tolerance=1.0), here) is None  # the op's own limit is what counts


def test_the_command_checks_tells_and_ends_with_its_verdict(
    device: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cpu(monkeypatch)
    other = replace(device.info.target, device="another machine")
    rows = final(device), final(device, ILLEGAL, WIDE), final(device, w=WIDE, target=other)
    file, db = tmp_path / "opts.json", str(tmp_path / "store.sqlite")
    file.write_text(json.dumps(exported(tmp_path, *rows)))
    later = run("import", str(file), "--db", db, "--no-verify", "--json")
    assert (later.exit_code, json.loads(later.stdout)["not_served"]) == (0, {"not checked": 3})
    done = run("import", str(file), "--db", db, "--workers", "1", "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["new"], told["right"], told["wrong"]) == (1, 0, 1, 1)
    assert told["not_served"] == {"for another target": 1}
    assert [f["outcome"] for f in told["failed"]] == ["illegal"]
    assert [w["schedule"]["variant"] for w in json.loads(run("list", "--db", db, "--json").stdout)] == ["factored"]
    again = run("import", str(file), "--db", db)
    told_again = again.stdout.splitlines()[1:]
    assert told_again == ["1 are not served: for another target", "1 are not served: found wrong here before"]
    assert again.exit_code == 0


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_checked(device: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cpu(monkeypatch)
    file, db = tmp_path / "opts.json", tmp_path / "store.sqlite"
    file.write_text(json.dumps(exported(tmp_path, final(device))))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autotune.verify.verify_claims", interrupted)
    done = run("import", str(file), "--db", str(db), "--workers", "1")
    assert done.exit_code == 130
    assert "goes on" in done.stderr
    assert len(Store.open(db).claims()) == 1
