"""Runs the tests of mutants, each in a copy of the tree with that one fault, in a process of its own.

A mutant is caught by a failed test only: not by a test that cannot be collected or set up, by code that does not run
at all (BROKEN), or by time that has run out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .mutant import Mutant, MutantError

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("kernels", "autotune", "db", "tests", "bench", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md")
SECONDS = 120.0  # for the tests of one mutant
BROKEN = (
    "ImportError",
    "ModuleNotFoundError",
    "NameError",
    "UnboundLocalError",
    "SyntaxError",
    "TypeError",
    "AttributeError",
)
CAUGHT, SURVIVED = "caught", "survived"


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant. result: CAUGHT, SURVIVED, or why it is neither; by: the first test that failed."""

    mutant: Mutant
    result: str
    by: str
    seconds: float


@dataclass(frozen=True)
class Ran:
    """A run of pytest: its exit code (None: out of time), tests that ran, failures as (test, message), its output."""

    code: int | None
    count: int
    failed: tuple[tuple[str, str], ...]
    errors: int
    skipped: int
    output: str


@contextmanager
def copied(root: Path = ROOT) -> Iterator[Path]:
    """A temporary folder with the tracked files of a checkout, as they are in its working tree."""
    listed = subprocess.run(["git", "ls-files", "-z", *COPIED], cwd=root, capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder)
        for name in listed.stdout.split("\0"):
            if name and (root / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, tree / name)
        yield tree


def run_tests(tree: Path, tests: Iterable[str], seconds: float) -> Ran:
    """Runs tests of a tree whose packages are those that are imported."""
    report = tree / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-n0",
        "-m",
        "not nightly",
        "-p",
        "no:cacheprovider",
        "--tb=line",
        f"--junitxml={report}",
    ]
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    env = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
    try:
        done = subprocess.run(
            [*command, *tests], cwd=tree, env=env, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return Ran(None, 0, (), 0, 0, f"no end within {seconds:g} s")
    output = done.stdout + done.stderr
    if not report.exists():
        return Ran(done.returncode, 0, (), 0, 0, output)
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = tuple(
        (f"{case.get('classname')}::{case.get('name')}", failure.get("message", ""))
        for case in cases
        for failure in case.iter("failure")
    )
    errors, skipped = (sum(1 for case in cases for _ in case.iter(kind)) for kind in ("error", "skipped"))
    return Ran(done.returncode, len(cases), failed, errors, skipped, output)


def check(mutants: Sequence[Mutant], root: Path = ROOT) -> None:
    """Raises MutantError for a mutant that cannot be made, or of which there are two."""
    for mutant in mutants:
        mutant.applied((root / mutant.file).read_text(encoding="utf-8"))
    names = [mutant.name for mutant in mutants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise MutantError(f"there are several mutants called {', '.join(sorted(twice))}")


def unmutated(mutants: Sequence[Mutant], root: Path = ROOT) -> Ran:
    """The tests of all these mutants in a tree without any. Raises MutantError unless all pass."""
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    with copied(root) as tree:
        where = "import kernels; print(kernels.__file__)"
        env = {**os.environ, "PYTHONPATH": str(tree)}
        found = subprocess.run([sys.executable, "-c", where], cwd=tree, env=env, capture_output=True, text=True)
        if not found.stdout.startswith(str(tree)):
            raise MutantError(f"kernels is imported from {found.stdout.strip()}, not from the copied tree {tree}")
        ran = run_tests(tree, tests, SECONDS * max(1, len(tests)))
    if ran.code != 0 or not ran.count or ran.skipped:
        raise MutantError(f"without a mutant, not all of its tests pass:\n{ran.output[-3000:]}")
    return ran


def outcome(mutant: Mutant, root: Path = ROOT) -> Outcome:
    """Runs one mutant. Raises MutantError if it cannot be made."""
    start = time.perf_counter()
    with copied(root) as tree:
        path = tree / mutant.file
        path.write_text(mutant.applied(path.read_text(encoding="utf-8")), encoding="utf-8")
        ran = run_tests(tree, mutant.tests, SECONDS)
    by, result = _judged(ran)
    return Outcome(mutant, result, by, time.perf_counter() - start)


def _judged(ran: Ran) -> tuple[str, str]:
    """The test that caught a mutant, and the result."""
    if ran.code is None:
        return "", ran.output
    if ran.code == 0:
        return "", SURVIVED
    if ran.code != 1 or ran.errors or not ran.failed:
        return "", f"pytest ended with {ran.code}, {ran.errors} errors: {ran.output[-2000:]}"
    test, message = ran.failed[0]
    if re.match("|".join(BROKEN), message):
        return "", f"it does not run: {message[:300]}"
    return test, CAUGHT
