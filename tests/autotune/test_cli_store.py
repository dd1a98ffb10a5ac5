"""The commands of the store: list, show, export, import. Each ends soon, and in one line where it cannot go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli import ok, run
from support.cpu_session import use_cpu
from support.store_rows import TARGET, WORKLOAD

from db.codec import workload_digest
from db.store import Store

pytestmark = pytest.mark.usefixtures("place")


def test_an_empty_store_is_no_error(place: Path) -> None:
    assert "nothing is served" in ok("list", "--all-targets")
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
    told = json.loads(ok("import", file, "--db", other, "--json"))
    assert (told["new"], told["right"], told["not_served"]) == (4, 0, {"for another target": 2})
    assert json.loads(ok("import", file, "--db", other, "--json"))["new"] == 0
    assert Path(file).read_bytes() == before
    assert json.loads(ok("list", "--all-targets", "--json", "--db", other)) == []
    assert "2 imported and not checked yet" in ok("list", "--all-targets", "--db", other)


@pytest.mark.parametrize("name", ["store.sqlite", "link.sqlite"])
def test_an_export_does_not_replace_the_store_itself(filled: Path, tmp_path: Path, name: str) -> None:
    """The store has more than is served: all that was tried, and what was found wrong."""
    (tmp_path / "link.sqlite").symlink_to(filled)
    before = Store.read(filled).stats().rows
    done = run("export", "-o", str(tmp_path / name))
    assert done.exit_code == 2
    assert "the store that is exported" in done.stderr
    assert Store.read(filled).stats().rows == before


def test_a_store_in_use_is_not_replaced_through_a_link(filled: Path, tmp_path: Path) -> None:
    other = Store.open(tmp_path / "other.sqlite")
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "other.sqlite")
    with other.kept_open():
        done = run("export", "-o", str(tmp_path / "link.sqlite"))
    assert done.exit_code == 2
    assert "a store in use" in done.stderr


@pytest.mark.parametrize("end", [".json", ".sqlite"])
def test_a_name_that_no_file_can_have_is_one_line(filled: Path, tmp_path: Path, end: str) -> None:
    done = run("export", "-o", str(tmp_path / ("x" * 300 + end)))
    assert done.exit_code == 2
    assert done.stderr.splitlines()[0].endswith("File name too long")


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
