"""The store that commands use in tests without --db: none yet, one that is filled, or one on the CPU; and a session on
the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.cpu_session import cpu_session, use_cpu
from support.store_rows import OTHER_TARGET, WORKLOAD, fact, opened, schedule

from autotune.session import Session
from db.records import Outcome, Schedule, Stage
from kernels.serve import server


@pytest.fixture
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


@pytest.fixture
def cpu_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store of one result, which commands use, on the CPU."""
    server.use(None)
    use_cpu(monkeypatch)
    opened(tmp_path / "store.sqlite", fact())
    monkeypatch.setenv("AUTOTUNE_DB", str(tmp_path / "store.sqlite"))
    return tmp_path


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session on the CPU with an empty store, for all tests of a module."""
    with cpu_session(tmp_path_factory.mktemp("device") / "store.sqlite") as s:
        yield s
