"""What the progress bar says, and that it is silent where it should be."""

import pytest

from autotune.progress import Bar
from autotune.tune import Progress
from autotune.workloads import ModelWorkload
from db.records import Workload

MODEL = ModelWorkload(Workload("linear", "Q4_K", 64, 256), 1, ("a.weight",), 9216)


def drawn(capsys: pytest.CaptureFixture[str], *steps: Progress, finished: int = 0, shown: bool = True) -> str:
    with Bar(4, 10.0, shown) as bar:
        for _ in range(finished):
            bar.finished()
        for step in steps:
            bar.update(MODEL, step)
        bar._bar.refresh()
    out = capsys.readouterr()
    assert out.out == ""  # stdout is for results
    return out.err


def test_it_tells_the_workload_its_budget_and_the_best_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    text = drawn(capsys, Progress(4.0, 17, 1.5e-4), finished=1)
    assert "2/4 Q4_K 64×256 m=1: 4/10 s, 17 tried, best 150.0 µs" in text
    assert "ETA" in text
    assert " 35%" in text  # 10 s of one workload and 4 s of the next, of 40 s


def test_before_the_first_probe_there_is_no_best(capsys: pytest.CaptureFixture[str]) -> None:
    assert "0 tried" in (text := drawn(capsys, Progress(0.1, 0, None)))
    assert "best" not in text


def test_a_workload_beyond_its_budget_does_not_run_ahead(capsys: pytest.CaptureFixture[str]) -> None:
    text = drawn(capsys, Progress(1000.0, 5, 1e-3))
    assert " 25%" in text
    assert "100%" not in text


def test_a_model_that_is_timed_as_deployed_is_a_part_of_the_eta(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(2, 20.0, True, models=1) as bar:
        bar.finished()
        bar.finished()
        bar.deploying("a.gguf")
        bar._bar.refresh()
        before = capsys.readouterr().err
        bar.deployed()
        bar._bar.refresh()
    assert " 67%" in before
    assert "a.gguf: timing whole passes" in before
    assert "100%" in capsys.readouterr().err


def test_it_is_silent_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(capsys, Progress(1.0, 1, 1e-3), shown=False) == ""


def test_a_budget_of_nothing_is_no_division_by_it(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(1, 0.0, True) as bar:
        bar.update(MODEL, Progress(0.5, 1, 1e-3))
        bar.finished()
    assert "ETA" in capsys.readouterr().err
