"""The commands that work with what a store holds: compare, forget, and what list can be asked for."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cli import ok, run
from support.command import AUTOTUNE, environment
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from autotune.cli.options import plan_of
from autotune.demo import write_demo_model
from db.codec import workload_digest
from db.lookup import Lookup
from db.records import Outcome, Stage, Target
from db.store import Store
from kernels.ops.registry import kernel_digest

CUDA = Target("CUDA", "sm_90", "NVIDIA H100", 132)
OTHER = replace(WORKLOAD, n=8192)
WRONG: dict[str, Any] = {"stage": Stage.VERIFY, "outcome": Outcome.WRONG_RESULT, "samples": ()}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store that commands use: two runs, two targets, a stale row, and a schedule that was found wrong."""
    path = tmp_path / "store.sqlite"
    monkeypatch.setenv("AUTOTUNE_DB", str(path))
    current = kernel_digest(WORKLOAD)
    store = opened(path, fact(kernel_digest=current), fact(workload=OTHER), fact(target=CUDA))
    store.start_run(replace(RUN, id="again"))
    store.record("again", [fact(kernel_digest=current, samples=(1e-5,) * 3, schedule=schedule("factored", 8))])
    store.record("again", [fact(kernel_digest=current, schedule=schedule("bad"))])
    store.record("again", [fact(kernel_digest=current, schedule=schedule("bad"), reason="wrong", **WRONG)])
    return path


def rows(path: Path) -> int:
    return Store.read(path).stats().rows["measurements"]


def test_two_runs_are_compared(place: Path) -> None:
    found = json.loads(ok("compare", "run1", "again", "--target", "M3", "--json"))
    (pair,) = found["workloads"]
    assert (pair["a_seconds"], pair["b_seconds"]) == (2e-5, 1e-5)
    assert (found["geometric_mean_ratio"], found["only_a"], found["only_b"]) == (pytest.approx(2), 1, 0)
    text = ok("compare", "run1", "again", "--target", "M3")
    assert "2.00×" in text
    assert "only in A: 1" in text


def test_a_store_and_an_export_are_compared(place: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "opts.json")
    ok("export", "-o", file)
    found = json.loads(ok("compare", str(place), file, "--target", "M3", "--json"))
    assert [pair["ratio"] for pair in found["workloads"]] == [1, 1]
    both = run("compare", str(place), file)
    assert both.exit_code == 2
    assert "choose one target" in both.stderr
    assert "Apple M3 Max" in both.stderr


def test_with_a_model_the_launches_of_a_token_are_summed(tmp_path: Path) -> None:
    model = str(write_demo_model(tmp_path / "demo.gguf"))
    launched = [mw for mw in plan_of(model, "METAL", (1,)).workloads if mw.count]
    known = launched[1:]
    for name, seconds in (("a", 2e-5), ("b", 1e-5)):
        facts = [fact(workload=mw.workload, samples=(seconds,) * 3) for mw in known]
        opened(tmp_path / f"{name}.sqlite", *facts, fact())
    names = [str(tmp_path / f"{name}.sqlite") for name in ("a", "b")]
    found = json.loads(ok("compare", *names, model, "--json"))
    (total,) = found["totals"]
    assert total["a_seconds"] == pytest.approx(2e-5 * sum(mw.count for mw in known))
    assert (total["ratio"], total["lacking"]) == (pytest.approx(2), launched[0].count)
    assert {pair["calls"] for pair in found["workloads"]} == {mw.count for mw in known}
    assert "all kernels of a token" in ok("compare", *names, model)


@pytest.mark.parametrize(("a", "said"), [("nowhere.json", "no file, and no one run"), ("r", "no file, and")])
def test_what_is_neither_a_file_nor_a_run_is_one_line(place: Path, a: str, said: str) -> None:
    done = run("compare", a, "again")
    assert done.exit_code == 2
    assert said in done.stderr or a == "r"  # "r" begins the id of one run


def test_runs_are_listed(place: Path) -> None:
    found = json.loads(ok("list", "--runs", "--json"))
    assert {(r["id"], r["accepted"], r["measurements"]) for r in found} == {("run1", 3, 3), ("again", 2, 3)}
    assert RUN.command in ok("list", "--runs")


def test_list_can_be_of_one_model(tmp_path: Path) -> None:
    model, db = str(write_demo_model(tmp_path / "demo.gguf")), tmp_path / "store.sqlite"
    mine = plan_of(model, "METAL", (8,)).workloads[0].workload
    opened(db, fact(), fact(workload=mine))
    (row,) = json.loads(ok("list", model, "--all-targets", "--db", str(db), "--json"))
    assert row["digest"] == workload_digest(mine)


def test_a_target_that_there_is_not_is_an_error_with_those_that_there_are(place: Path) -> None:
    for verb in (("list",), ("export",), ("submit", "--all"), ("forget",)):
        done = run(*verb, "--target", "M9")
        assert done.exit_code == 2
        assert "NVIDIA H100" in done.stderr
    assert run("export", "--op", "nonsense").exit_code == run("export", "--format", "nonsense").exit_code == 2


def test_a_table_fits_a_narrow_terminal(place: Path) -> None:
    wide = ok("list", "--all-targets")
    master, slave = os.openpty()
    try:
        command = [*AUTOTUNE, "list", "--all-targets"]
        subprocess.run(command, env=environment(place, COLUMNS="60"), stdout=slave, check=True, timeout=60)
        narrow = os.read(master, 1 << 16).decode()
    finally:
        os.close(slave)
        os.close(master)
    assert max(map(len, wide.splitlines())) > 60 >= max(map(len, narrow.splitlines()))
    assert wide.split() == narrow.split()


def test_forget_asks_and_deletes_what_fits_all_that_is_given(place: Path) -> None:
    before = rows(place)
    asked = run("forget", "--target", "H100", input="n\n")
    assert (asked.exit_code, rows(place)) == (0, before)
    assert "delete 1 rows" in asked.stderr
    assert run("forget", "--target", "H100", "--run", "again", "--yes").stdout.startswith("there is nothing")
    assert "1 rows" in run("forget", "--target", "H100", input="y\n").stdout
    assert rows(place) == before - 1
    assert "NVIDIA" not in ok("list", "--all-targets")


def test_forget_takes_a_workload_a_run_or_what_is_stale(place: Path) -> None:
    told = json.loads(ok("forget", workload_digest(OTHER)[:10], "--yes", "--json"))
    assert (told["deleted"], told["accepted"]) == (1, 1)
    told = json.loads(ok("forget", "--stale", "--yes", "--json"))
    assert told["deleted"] == 1  # CUDA's, of another version of the kernel
    told = json.loads(ok("forget", "--run", "again", "--yes", "--json"))
    assert (told["deleted"], told["kept"]) == (2, 1)
    assert rows(place) == 2


def test_what_was_found_wrong_is_kept_unless_it_is_asked_for(place: Path) -> None:
    store, digest = Store.read(place), kernel_digest(WORKLOAD)
    assert len(store.known_bad(WORKLOAD, TARGET, digest)) == 1
    assert "1 of what failed stay" in ok("forget", "--target", "M3", "--yes")
    assert len(store.known_bad(WORKLOAD, TARGET, digest)) == 1
    assert Lookup(place).exact(WORKLOAD, TARGET, digest) is None
    assert json.loads(ok("forget", "--target", "M3", "--failures", "--yes", "--json"))["deleted"] == 1
    assert store.known_bad(WORKLOAD, TARGET, digest) == {}
    assert rows(place) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "give a DIGEST"),
        ("--stale --json", "add --yes"),
        ("0123", "none begins with it"),
        ("--run nothing", "list --runs"),
    ],
)
def test_forget_of_nothing_or_something_unknown_is_one_line(place: Path, arguments: str, said: str) -> None:
    before = rows(place)
    done = run("forget", *arguments.split())
    assert (done.exit_code, rows(place)) == (2, before)
    assert said in done.stderr


def test_a_store_can_be_used_after_it_forgot(place: Path) -> None:
    ok("forget", "--target", "M3", "--yes")
    store = Store.open(place)
    store.record(RUN.id, [fact()])
    served = Lookup(place).exact(WORKLOAD, TARGET, KERNEL)
    assert served is not None
    assert served.schedule == schedule()
