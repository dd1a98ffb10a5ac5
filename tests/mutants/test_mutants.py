"""Each deliberate fault is caught by the tests that are named for it; the list of faults fits the code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mutants import runner
from mutants.known import MUTANTS
from mutants.mutant import Mutant, MutantError
from mutants.runner import CAUGHT, SURVIVED

FILES = {
    "kernels/__init__.py": "def double(x):\n    return x + x\n",
    "tests/test_double.py": """
from kernels import double
def test_double(): assert double(3) == 6
def test_zero(): assert double(0) == 0
""",
}


def test_every_mutant_can_be_made() -> None:
    runner.check(MUTANTS)
    assert len(MUTANTS) >= 45


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout of two small files."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def mutant(new: str, test: str = "test_double", old: str = "return x + x") -> Mutant:
    return Mutant("a fault", "kernels/__init__.py", old, new, (f"tests/test_double.py::{test}",))


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("new", "test", "result"),
    [
        ("return x", "test_double", CAUGHT),
        ("return x", "test_zero", SURVIVED),
        ("return y", "test_double", "it does not run: NameError"),
        ("return (x", "test_double", "pytest ended with"),
        ("return x", "test_gone", "pytest ended with 4"),
    ],
)
def test_only_a_failed_test_catches_a_mutant(new: str, test: str, result: str, tree: Path) -> None:
    found = runner.outcome(mutant(new, test), tree)
    assert found.result.startswith(result)
    assert found.by == ("tests.test_double::test_double" if result == CAUGHT else "")
    assert (tree / "kernels/__init__.py").read_text() == FILES["kernels/__init__.py"]


@pytest.mark.nightly
def test_a_mutant_without_an_end_is_not_caught(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SECONDS", 3.0)
    assert runner.outcome(mutant("while True: pass"), tree).result == "no end within 3 s"


def test_a_mutant_whose_text_is_not_there_once_is_an_error(tree: Path) -> None:
    for old, times in (("return x - x", 0), ("x", 3)):
        with pytest.raises(MutantError, match=f"'a fault': kernels/__init__.py has {times} times, not once"):
            runner.check([mutant("", old=old)], tree)
    with pytest.raises(MutantError, match="several mutants called a fault"):
        runner.check([mutant("return x"), mutant("return 1")], tree)


@pytest.mark.nightly
def test_the_tests_must_pass_without_a_mutant(tree: Path) -> None:
    assert runner.unmutated([mutant("return x")], tree).count == 1
    (tree / "kernels/__init__.py").write_text("def double(x):\n    return 7\n")
    with pytest.raises(MutantError, match="without a mutant, not all of its tests pass"):
        runner.unmutated([mutant("return x")], tree)


@pytest.fixture(scope="session")
def clean() -> None:
    """The named tests pass where there is no fault."""
    runner.unmutated(MUTANTS)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("fault", MUTANTS, ids=[m.name.replace(" ", "-") for m in MUTANTS])
def test_a_fault_is_caught(fault: Mutant) -> None:
    assert runner.outcome(fault).result == CAUGHT
