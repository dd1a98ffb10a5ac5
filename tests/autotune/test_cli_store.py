"""The commands of the store: list, show, export, import. Each ends soon, and in one line where it cannot go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.cli import ok, run
from support.cpu_session import use_cpu
from support.store_rows import TARGET, WORKLOAD, fact, opened, schedule

from db.codec import workload_digest
from db.records import Outcome, Schedule, Stage, Target
from db.store import Store

OTHER_TARGET = Target("CUDA", "sm_90", "NVIDIA H100", 132)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store that commands use without --db; not created yet."""
    monkeypatch.setenv("AUTOTUNE_DB", str(tmp_path / "store.sqlite"))
    return tmp_path / "store.sqlite"


@pytest.fixture
def filled(place: Path) -> Path:
    """A store with two targets, baselines, and a candidate that failed."""
    heuristic = fact(stage=Stage.BASELINE, schedule=Schedule("dequant"), samples=(8e-5,) * 3)
    default = fact(stage=Stage.BASELINE, schedule=schedule("factored", 4), samples=(4e-5,) * 3)
    crash = fact(stage=Stage.PROBE, schedule=schedule("warp"), outcome=Outcome.CRASH, samples=(), reason="SIGSEGV")
    q8 = fact(workload=replace(WORKLOAD, format="Q8_0"), target=OTHER_TARGET)
    opened(place, heuristic, default, crash, fact(schedule=schedule("factored", 8)), q8)
    return place


def test_an_empty_store_is_no_error(place: Path) -> None:
    assert "nothing is stored" in ok("list", "--all-targets")
    assert json.loads(ok("list", "--all-targets", "--json")) == []
    assert json.loads(ok("export"))["finals"] == []


def test_list_shows_time_bandwidth_gains_and_the_schedule(filled: Path) -> None:
    text = ok("list", "--target", "m3")
    assert text.splitlines()[0] == str(TARGET)
    row = text.splitlines()[2]
    assert [part in row for part in ("Q4_K 4096×4096 m=1", "20.0", "500.0", "4.00×", "2.00×", "LOCAL(1:8)")] == [
        True
    ] * 6
    assert "Q8_0" not in text


def test_list_filters_by_target_and_format(filled: Path) -> None:
    both = json.loads(ok("list", "--all-targets", "--json"))
    assert {w["target"]["backend"] for w in both} == {"METAL", "CUDA"}
    assert [w["workload"]["format"] for w in json.loads(ok("list", "--all-targets", "--format", "Q8_0", "--json"))] == [
        "Q8_0"
    ]
    metal = next(w for w in both if w["target"]["backend"] == "METAL")
    assert (metal["gain"], metal["gain_over_default"]) == (pytest.approx(4), pytest.approx(2))


def test_list_without_a_filter_is_about_this_machine(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cpu(monkeypatch)
    assert json.loads(ok("list", "--json")) == []
    assert "2 for other targets" in ok("list")


def test_show_tells_outcomes_with_a_reason_and_the_winner_in_full(filled: Path) -> None:
    digest = workload_digest(WORKLOAD)
    text = ok("show", digest[:12].upper())
    assert digest in text
    assert "SIGSEGV" in text
    assert "opt 0: LOCAL loop=1 axis=0 arg=8" in text
    found = json.loads(ok("show", digest, "--json"))
    assert [r["stage"] for r in found["history"]] == ["baseline", "baseline", "probe", "final"]
    assert found["served"][0]["schedule"]["opts"][0]["op"] == "LOCAL"


@pytest.mark.parametrize("name", ["opts.json", "opts.sqlite"])
def test_an_export_is_imported_once(filled: Path, tmp_path: Path, name: str) -> None:
    file, other = str(tmp_path / name), str(tmp_path / "other.sqlite")
    assert "2 schedules" in ok("export", "-o", file)
    before = Path(file).read_bytes()
    assert json.loads(ok("import", file, "--db", other, "--json"))["new"] == 4
    assert json.loads(ok("import", file, "--db", other, "--json"))["new"] == 0
    assert Path(file).read_bytes() == before
    mine, theirs = (json.loads(ok("list", "--all-targets", "--json", "--db", db)) for db in (str(filled), other))
    assert [w | {"origin": "imported"} for w in mine] == theirs


def test_an_export_goes_through_a_pipe(filled: Path, tmp_path: Path) -> None:
    text = ok("export", "--target", "H100")
    assert [f["workload"]["format"] for f in json.loads(text)["finals"]] == ["Q8_0"]
    assert "1 rows are new" in ok("import", "-", "--db", str(tmp_path / "other.sqlite"), input=text)


def test_a_store_in_use_can_be_imported(filled: Path, tmp_path: Path) -> None:
    with Store.open(filled).engine.connect():  # its newest rows may lie in the journal beside it
        assert "4 rows are new" in ok("import", str(filled), "--db", str(tmp_path / "other.sqlite"))


def test_a_target_that_fits_two_is_not_exported(filled: Path) -> None:
    done = run("export", "--target", "a")
    assert done.exit_code == 2
    assert "Apple M3 Max" in done.stderr
    assert "NVIDIA H100" in done.stderr


def test_a_bad_file_is_refused_whole_with_the_path_of_the_field(filled: Path, tmp_path: Path) -> None:
    payload = json.loads(ok("export"))
    payload["finals"][1]["schedule"]["opts"] = [{"op": "os.system"}]
    other = tmp_path / "other.sqlite"
    done = run("import", "-", "--db", str(other), input=json.dumps(payload))
    assert done.exit_code == 2
    assert "finals[1].schedule" in done.stderr
    assert "os.system" in done.stderr
    assert json.loads(ok("list", "--all-targets", "--json", "--db", str(other))) == []
