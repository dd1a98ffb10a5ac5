"""What CI does with a pull request that changes db/rows: `.ci/rows`, in a repository made for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.command import AUTOTUNE, ROOT, environment
from support.cpu_session import use_cpu
from support.store_rows import RUN, TARGET, opened, schedule

from autotune.submission import submission, write
from db.records import Measurement, Opt, Outcome, Schedule, Stage, Target, Workload
from kernels import devices
from kernels.devices import DeviceError, choose_device
from kernels.ops.registry import kernel_digest

W = Workload("linear", "Q8_0", 64, 64)
COMPLETE = replace(RUN, versions=(("driver", "1"), ("tinygrad", "0.14.0"), ("tinygrad-autotune", "0.1.0")))
RIGHT = Schedule("factored", (("lanes", 4), ("words", 8)), (Opt("UPCAST", None, 2, "1"),))
ILLEGAL = replace(RIGHT, opts=(Opt("UPCAST", None, 7, "1"),))
CUDA = Target("CUDA", "sm_90", "NVIDIA H100", 132)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone whose main branch has results of a Mac; the branch that is checked out is a pull request's."""
    folder = tmp_path / "clone"
    (folder / "db" / "rows").mkdir(parents=True)
    (folder / ".ci").mkdir()
    (folder / ".ci" / "rows").symlink_to(ROOT / ".ci" / "rows")
    (tmp_path / "autotune").write_text(f'#!/bin/sh\nexec {" ".join(AUTOTUNE)} "$@"\n', encoding="utf-8")
    (tmp_path / "autotune").chmod(0o755)
    git(folder, "init", "-q", "-b", "main")
    add(folder, TARGET, schedule())
    git(folder, "switch", "-q", "-c", "results")
    return folder


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def add(folder: Path, target: Target, found: Schedule) -> Path:
    """Submits and commits a result of a target."""
    untuned = Measurement(W, target, Schedule("dequant"), kernel_digest(W), Stage.BASELINE, Outcome.OK, (8e-5,) * 5)
    baseline = replace(untuned, nbytes=4096, error=1e-7, tolerance=1e-5, clock="event")
    final = replace(baseline, schedule=found, stage=Stage.FINAL, samples=(2e-5,) * 5)
    run = replace(COMPLETE, id=f"run-{target.backend}")
    store = opened(folder.parent / f"{target.backend}.sqlite", baseline, final, run=run)
    path, _ = write(submission(store, target), str(folder / "db" / "rows"))
    commit(folder)
    return path


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "results")


def check(folder: Path, **more: str) -> tuple[int, str]:
    path = f"{folder.parent}{os.pathsep}{os.environ['PATH']}"
    env = environment(folder.parent / "none.sqlite", PATH=path, PYTHON=sys.executable, **more)
    done = subprocess.run([".ci/rows", "main"], cwd=folder, env=env, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout + done.stderr


def here(patch: pytest.MonkeyPatch) -> Target:
    return devices.describe_target(use_cpu(patch))


def test_a_change_of_something_else_is_not_looked_at(repository: Path) -> None:
    for folder in (repository, repository / "db" / "rows"):
        (folder / "README.md").write_text("new", encoding="utf-8")
    commit(repository)
    assert check(repository) == (0, "no results are changed\n")


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [(RIGHT, 0, "0 not right"), (ILLEGAL, 1, "1 not right")],
)
@pytest.mark.slow
def test_results_of_this_cpu_and_of_a_gpu_that_is_not_here(
    repository: Path, monkeypatch: pytest.MonkeyPatch, found: Schedule, status: int, said: str
) -> None:
    add(repository, CUDA, schedule())
    add(repository, here(monkeypatch), found)
    code, text = check(repository)
    assert code == status, text
    assert "3 rows in 3 files: 2 new, 0 replaced, 0 problems" in text
    assert f"1 of 1 schedules checked, {said}" in text
    assert status or "cannot be checked without such a device" in text


def gone(path: Path) -> None:
    path.unlink()


def changed(path: Path) -> None:
    payload = json.loads(path.read_text(encoding="utf-8"))
    payload["finals"][0]["samples"][0] = 1e-6
    path.write_text(json.dumps(payload), encoding="utf-8")


@pytest.mark.parametrize(("change", "said"), [(gone, "not there any more"), (changed, "not measured later")])
def test_a_row_of_another_target_must_stay_as_it_is(
    repository: Path, change: Callable[[Path], None], said: str
) -> None:
    add(repository, CUDA, schedule())
    (mac,) = (repository / "db" / "rows").glob("metal*.json")
    change(mac)
    commit(repository)
    code, text = check(repository)
    assert code == 1
    assert said in text


@pytest.mark.slow
def test_results_of_two_targets_that_are_here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(repository, here(monkeypatch), RIGHT)
    try:
        choice = choose_device({**os.environ, "DEV": "CL"})
    except DeviceError as e:
        pytest.skip(str(e))
    code = "import dataclasses, json; from kernels import devices as d; "
    code += "print(json.dumps(dataclasses.asdict(d.describe_target('CL'))))"
    env = environment(repository.parent / "none.sqlite", DEV=choice.device)
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    add(repository, Target(**json.loads(told.stdout)), RIGHT)
    status, text = check(repository)
    assert status == 0, text
    assert text.count("1 of 1 schedules checked, 0 not right") == 2
