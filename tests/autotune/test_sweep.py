"""The sweep on a real CPU device with a tiny model: what is tuned, known, skipped, failed, and in which order."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.cpu_session import use_cpu

from autotune.session import Session, session
from autotune.settings import Settings
from autotune.sweep import Row, Sweep
from autotune.trial.runner import RunnerError
from autotune.tune import Progress, Tuner
from autotune.workloads import ModelPlan, ModelWorkload
from db.records import Workload
from db.store import Store

SMALL = Workload("linear", "Q8_0", 48, 64)
OTHER = Workload("linear", "F32", 7, 33)
UNKNOWN_FORMAT = Workload("linear", "Q8_K", 64, 256)
RAGGED = Workload("linear", "Q4_K", 64, 100)  # k is no whole number of blocks


def plan(*workloads: Workload) -> ModelPlan:
    return ModelPlan("llama", tuple(ModelWorkload(w, 3, ("blk.0.x.weight",), 1000) for w in workloads), ())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Session, list[Row], list[Progress]]]:
    """A session, and the rows and progress of its first sweep."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("sweep") / "store.sqlite"
        chosen = Settings(db=str(place), device=use_cpu(patch), budget_seconds=1.0, workers=2)
        with session(chosen) as s:
            seen: list[Progress] = []
            rows = list(Sweep(s, plan(SMALL, UNKNOWN_FORMAT, RAGGED), "test").rows(lambda w, p: seen.append(p)))
            yield s, rows, seen


def test_what_has_no_kernel_is_skipped_with_a_reason_and_the_rest_is_tuned(
    tiny: tuple[Session, list[Row], list[Progress]],
) -> None:
    _, rows, _ = tiny
    assert [row.result.status for row in rows[:2]] == ["skipped", "skipped"]
    assert "Q8_K" in rows[0].result.reason
    assert "100" in rows[1].result.reason
    result = rows[2].result
    assert result.status in ("tuned", "baseline wins")
    assert result.error is not None
    assert result.error <= 1e-5
    assert result.heuristic_seconds is None  # nobody asked for it
    assert result.default_seconds is not None
    assert rows[2].bandwidth is not None
    assert 0 < (rows[2].copy_share or 0) < 10


def test_progress_is_told_while_a_workload_is_searched(tiny: tuple[Session, list[Row], list[Progress]]) -> None:
    _, rows, seen = tiny
    assert seen[-1].tried == rows[2].result.tried > 0
    assert seen[-1].best_seconds is not None


def test_the_run_says_what_its_figures_depend_on(tiny: tuple[Session, list[Row], list[Progress]]) -> None:
    s, _, _ = tiny
    (winner,) = s.store.finals()
    versions = dict(winner.row.run.versions)
    assert versions.keys() >= {"tinygrad", "driver", "python", "tinygrad-autotune", "clock"}
    assert (winner.row.run.command, winner.row.run.budget_seconds) == ("test", 1.0)


def test_a_second_sweep_does_nothing_and_says_the_same(tiny: tuple[Session, list[Row], list[Progress]]) -> None:
    s, rows, _ = tiny
    again = Sweep(s, plan(SMALL, UNKNOWN_FORMAT), "test")
    assert again.todo == ()
    before = s.store.stats().rows
    known = next(row for row in again.rows() if row.result.status == "known")
    first = rows[2].result
    assert s.store.stats().rows == before
    assert (known.result.schedule, known.result.seconds) == (first.schedule, pytest.approx(first.seconds, abs=1e-10))
    assert known.result.gain == pytest.approx(first.gain)


@pytest.mark.parametrize(
    ("effort", "todo"),
    [({"budget_seconds": 0.5}, 0), ({"beam_width": 1}, 0), ({"budget_seconds": 2.0}, 1), ({"beam_width": 5}, 1)],
)
def test_more_effort_is_a_new_search(
    tiny: tuple[Session, list[Row], list[Progress]], effort: dict[str, float], todo: int
) -> None:
    s, _, _ = tiny
    asked = replace(s, settings=replace(s.settings, **effort))
    assert len(Sweep(asked, plan(SMALL), "test").todo) == todo


def test_a_lost_device_fails_one_workload_and_the_next_is_tuned(
    tiny: tuple[Session, list[Row], list[Progress]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s, _, _ = tiny
    fresh = replace(s, store=Store.open(tmp_path / "fresh.sqlite"))
    tune = Tuner.tune

    def lost(self: Tuner, w: Workload) -> object:
        if w == OTHER:
            raise RunnerError("no room for its inputs")
        return tune(self, w)

    monkeypatch.setattr(Tuner, "tune", lost)
    rows = list(Sweep(fresh, plan(OTHER, SMALL), "test").rows())
    assert [row.result.status == "failed" for row in rows] == [True, False]
    assert rows[0].result.reason == "no room for its inputs"
    assert rows[0].bandwidth is None
