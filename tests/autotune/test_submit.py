"""`autotune submit`: a file of one device's results, and the check of what such files add to the repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cli import ok, run
from support.cpu_session import use_cpu
from support.store_rows import RUN, TARGET, opened, schedule

from autotune.cli.options import workloads_of
from autotune.demo import write_demo_model
from db.records import Measurement, Outcome, Run, Schedule, Stage, Target, Workload
from db.store import Store
from kernels.ops.registry import kernel_digest

W = Workload("linear", "Q8_0", 64, 64)
WIDE = replace(W, n=128)
CUDA = Target("CUDA", "sm_90", "NVIDIA H100", 132)
FILE = "metal-apple9-apple-m3-max-40.json"
VERSIONS = (("driver", "555"), ("tinygrad", "0.14.0"), ("tinygrad-autotune", "0.1.0"))
COMPLETE = replace(RUN, versions=VERSIONS)


def fact(w: Workload = W, microseconds: float = 20, **changes: Any) -> Measurement:
    row = Measurement(w, TARGET, schedule(), kernel_digest(w), Stage.FINAL, Outcome.OK, (microseconds * 1e-6,) * 5)
    return replace(row, **{"nbytes": 4096, "error": 1e-7, "tolerance": 1e-5, "clock": "event", **changes})


def tuned(w: Workload = W, target: Target = TARGET, microseconds: float = 20) -> list[Measurement]:
    """What a sweep stores: a winner after its baselines."""
    about = {"target": target, "stage": Stage.BASELINE}
    baselines = [
        fact(w, 90, schedule=Schedule("dequant"), **about),
        fact(w, 80, schedule=Schedule("factored"), **about),
        fact(w, 40, schedule=schedule("factored", 4), **about),
        fact(w, 50, schedule=schedule("dequant", 4), **about),
    ]
    return [*baselines, fact(w, microseconds, target=target)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store that commands use, with a result for each of two targets."""
    path = tmp_path / "store.sqlite"
    monkeypatch.setenv("AUTOTUNE_DB", str(path))
    opened(path, *tuned(), *tuned(target=CUDA), run=COMPLETE)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """The folder of a checkout that submissions go to."""
    (tmp_path / "rows").mkdir()
    return tmp_path / "rows"


def submitted(folder: Path, target: str = "M3") -> dict[str, Any]:
    told = json.loads(ok("submit", "--all", "--target", target, "-o", str(folder), "--json"))
    found: dict[str, Any] = json.loads(Path(told["file"]).read_text(encoding="utf-8"))
    return found


def checked(folder: Path, *arguments: str) -> list[str]:
    done = run("submit", "--check", str(folder), *arguments, "--json")
    problems: list[str] = json.loads(done.stdout)["problems"]
    assert done.exit_code == (1 if problems else 0)
    return problems


def test_a_file_has_the_winners_of_one_target_and_what_they_are_judged_by(place: Path, rows: Path) -> None:
    found = submitted(rows)
    assert [path.name for path in rows.iterdir()] == [FILE]
    (final,) = found["finals"]
    assert final["target"]["device"] == TARGET.device
    assert sorted(b["samples"][0] * 1e6 for b in final["baselines"]) == pytest.approx([40, 50, 80])
    assert (final["error"], final["kernel_digest"]) == (1e-7, kernel_digest(W))
    assert found["runs"][0]["versions"] == dict(VERSIONS)
    assert checked(rows) == []


def test_a_submission_is_an_export_that_import_reads(place: Path, rows: Path, tmp_path: Path) -> None:
    submitted(rows)
    told = json.loads(ok("import", str(rows / FILE), "--db", str(tmp_path / "other.sqlite"), "--json"))
    assert (told["new"], told["not_served"]) == (4, {"for another target": 1})
    assert json.loads(ok("import", str(rows / FILE), "--json"))["known"] == 4


def test_the_file_is_small_and_readable(place: Path, rows: Path) -> None:
    submitted(rows)
    lines = (rows / FILE).read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 200
    assert len(lines) < 60
    assert sum('"samples": [' in line and line.count("e-05") == 5 for line in lines) == 4


def test_only_the_workloads_of_a_model_are_submitted(
    place: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(write_demo_model(tmp_path / "demo.gguf"))
    of_model = next(iter(workloads_of(model, "METAL")))
    Store.open(place).record(RUN.id, tuned(of_model))
    ok("submit", model, "--target", "M3")
    (final,) = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))["finals"]
    assert (final["workload"]["op"], final["workload"]["n"]) == (of_model.op, of_model.n)


def test_rules_that_a_file_has_stay(place: Path, rows: Path) -> None:
    found = submitted(rows)
    rule = {"backend": "METAL", "arch": "", "class": {"op": "linear"}, "schedules": [found["finals"][0]["schedule"]]}
    path = rows / FILE
    path.write_text(json.dumps({**found, "rules": [{**rule, "why": "reasoned"}]}), encoding="utf-8")
    assert submitted(rows)["rules"] == [{**rule, "why": "reasoned"}]


def test_a_second_submission_adds_to_the_file(place: Path, rows: Path, tmp_path: Path) -> None:
    submitted(rows)
    other = tmp_path / "other.sqlite"
    opened(other, *tuned(WIDE), run=replace(COMPLETE, id="run2"))
    told = ok("submit", "--all", "--target", "M3", "-o", str(rows), "--db", str(other))
    assert "1 rows" in told
    assert "2 now" in told
    found = json.loads((rows / FILE).read_text(encoding="utf-8"))
    assert ([f["workload"]["n"] for f in found["finals"]], len(found["runs"])) == ([128, 64], 2)
    assert checked(rows) == []


def test_a_later_row_takes_the_place_of_one_of_the_same_workload(place: Path, rows: Path, tmp_path: Path) -> None:
    submitted(rows)
    old = tmp_path / "old"
    rows.rename(old)
    rows.mkdir()
    Store.open(place).record(RUN.id, tuned(microseconds=15))
    submitted(rows)
    assert checked(rows, "--only-adds", str(old)) == []
    told = ok("submit", "--check", str(rows), "--only-adds", str(old))
    assert "0 new, 1 replaced, 0 problems" in told
    assert " 15.0 " in told
    assert " 20.0 " in told
    (problem,) = checked(old, "--only-adds", str(rows))
    assert "not measured later" in problem


def test_a_row_that_is_gone_is_a_problem(place: Path, rows: Path, tmp_path: Path) -> None:
    submitted(rows)
    submitted(rows, "H100")
    new = tmp_path / "new"
    new.mkdir()
    submitted(new)
    (problem,) = checked(new, "--only-adds", str(rows))
    assert "NVIDIA H100" in problem
    assert "not there any more" in problem
    assert checked(rows, "--only-adds", str(new)) == []


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    payload = json.loads(path.read_text(encoding="utf-8"))
    change(payload)
    path.write_text(json.dumps(payload), encoding="utf-8")


CHANGES: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("another version of the kernels", lambda p: p["finals"][0].update(kernel_digest="0ld")),
    ("no variant 'magic' of linear", lambda p: p["finals"][0]["schedule"].update(variant="magic")),
    ("less exact", lambda p: p["finals"][0].update(error=0.5, tolerance=1.0)),
    ("no baseline", lambda p: p["finals"][0].update(baselines=[])),
    ("slower than a baseline", lambda p: p["finals"][0].update(samples=[1.0])),
    ("version of driver", lambda p: p["runs"][0]["versions"].pop("driver")),
    ("belong in", lambda p: p["finals"][0]["target"].update(device="Apple M4")),
    ("Q9_9", lambda p: p["finals"][0]["workload"].update(format="Q9_9")),
    ("missing", lambda p: p["finals"][0].pop("error")),
]


@pytest.mark.parametrize(("said", "change"), CHANGES, ids=[said for said, _ in CHANGES])
def test_what_is_wrong_with_a_file_is_named(
    place: Path, rows: Path, said: str, change: Callable[[dict[str, Any]], object]
) -> None:
    submitted(rows)
    edited(rows / FILE, change)
    (problem,) = checked(rows)
    assert said in problem


def test_what_was_not_measured_here_or_is_stale_is_left_out(place: Path, rows: Path, tmp_path: Path) -> None:
    store = Store.open(place)
    store.record(RUN.id, [fact(WIDE, kernel_digest="0ld")])
    told = json.loads(ok("submit", "--all", "--target", "M3", "-o", str(rows), "--json"))
    assert (told["rows"], list(told["left_out"].values())) == (1, [1])
    assert "autotune retune" in next(iter(told["left_out"]))


def test_rows_of_a_busy_machine_are_told_of(tmp_path: Path, rows: Path) -> None:
    place = tmp_path / "busy.sqlite"
    opened(place, *tuned(), run=Run("busy", "autotune sweep", 4, 60.0, (*VERSIONS, ("load", "a game"))))
    assert "1 were timed while" in ok("submit", "--all", "--target", "M3", "-o", str(rows), "--db", str(place))


def test_this_devices_results_are_what_is_submitted(place: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cpu(monkeypatch)
    done = run("submit", "--all", "-o", str(rows))
    assert done.exit_code == 2
    assert "nothing was tuned on CPU" in done.stderr
    assert list(rows.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("submit", "give a MODEL or --all"),
        ("submit MODEL --all", "--all takes no MODEL"),
        ("submit --all --target a", "fits"),
        ("submit --all --target M9", "fits no target; there are"),
        ("submit --all -o - --json", "stdout has the results"),
        ("submit --all --check .", "neither a MODEL nor --all"),
        ("submit --all --only-adds .", "is for --check"),
        ("submit --check nowhere", "No such file"),
    ],
)
def test_bad_arguments_are_one_line(place: Path, arguments: str, said: str) -> None:
    done = run(*arguments.split())
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_file_of_another_target_is_not_added_to(place: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "mine.json")
    ok("submit", "--all", "--target", "M3", "-o", file)
    done = run("submit", "--all", "--target", "H100", "-o", file)
    assert done.exit_code == 2
    assert "choose another file" in done.stderr
