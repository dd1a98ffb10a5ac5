"""The soak finds what it is for, and a few seconds of it find nothing in the product."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SEED = 1

_FAULTY = """
import json, os, signal, sys, tempfile, time
from dataclasses import dataclass
from pathlib import Path
from tests.soak.attack import BrokenError, Promise, SkippedError
from tests.soak.driver import Driver

def lose(): raise BrokenError(Promise.ROWS, "a row")
def skip(): raise SkippedError("no such disk")
ACTS = {"hangs": lambda: time.sleep(60), "dies": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "raises": lambda: {}["x"], "loses": lose, "skips": skip, "exits": lambda: os._exit(3), "keeps": lambda: None}

@dataclass(frozen=True)
class Faulty:
    name: str
    share: float = 1.0
    limit_seconds: float = 0.4
    def prepare(self, shared): (shared / "number").write_text("7")
    def run(self, case):
        assert (case.shared / "number").read_text() == "7"
        assert list(case.folder.iterdir()) == []
        (case.folder / "left").touch()
        case.note(f"{self.name} {case.rng.random()}")
        ACTS[self.name]()

with tempfile.TemporaryDirectory() as folder:
    told = []
    driver = Driver([Faulty(name) for name in ACTS], 5, Path(folder), told.append)
    did = {a.name: [driver.run(a, i) for i in (0, 1)] for a in map(Faulty, ACTS)}
    driver.close()
faults = [[f.attack, f.case, f.promise, f.where] for f in told]
cases = {name: tally.cases for name, tally in driver.tallies.items()}
print(json.dumps({"faults": faults, "did": did, "skipped": driver.tallies["skips"].skipped, "cases": cases}))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it forks, and this one may have threads."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    done = python("-c", _FAULTY)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_every_kind_of_fault_is_counted(found: dict[str, Any]) -> None:
    promises = {(attack, promise) for attack, _, promise, _ in found["faults"]}
    ends = {("hangs", "hang"), ("dies", "death"), ("exits", "death")}
    assert promises == {*ends, ("raises", "traceback"), ("loses", "rows lost")}
    assert len(found["faults"]) == 2 * len(promises)
    assert found["skipped"] == {"no such disk": 2}
    assert set(found["cases"].values()) == {2}


def test_a_fault_says_where_it_is(found: dict[str, Any]) -> None:
    where = {attack: where for attack, _, _, where in found["faults"]}
    assert where["dies"] == "the process died: signal SIGSEGV"
    assert where["exits"] == "the process died: 3"
    assert where["raises"].startswith("KeyError in ")


def test_a_case_is_its_own_whatever_ran_before(found: dict[str, Any]) -> None:
    again = python("-c", _FAULTY)
    assert json.loads(again.stdout)["did"] == found["did"]
    (first,), (second,) = found["did"]["keeps"]
    assert first != second


def soaked(*arguments: str) -> dict[str, Any]:
    """The last line of a soak in which no promise was broken."""
    done = python("-m", "tests.soak", "--seed", str(SEED), *arguments)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_promises_are_kept_for_a_while() -> None:
    """A few cases of every attack but sweeps, which take seconds each."""
    told = soaked("--cases", "4", "--except", "sweeps", "--except", "resumed", "--except", "histories")
    assert (told["seed"], told["faults"]) == (SEED, 0)
    assert {a["cases"] for a in told["attacks"].values()} == {4}


@pytest.mark.slow
def test_what_was_found_wrong_is_not_served() -> None:
    soaked("--cases", "8", "--only", "histories")
