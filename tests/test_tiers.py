"""Tests have three tiers, and every test is in one: plain pytest, what `.ci/run` adds, what `.ci/run nightly` adds."""

import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

ROOT = Path(__file__).parents[1]
OPTIONS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
MARKERS = {line.partition(":")[0] for line in OPTIONS["markers"]}
GATE, NIGHTLY = (ROOT / ".ci/run", ROOT / ".github/workflows/nightly.yml")
COMMAND = re.compile(r"^[^#\n]*\bpython -m pytest\b(?P<arguments>.*)$", re.MULTILINE)


def marks() -> list[frozenset[str]]:
    """What a test may be marked with."""
    return [frozenset(c) for n in range(len(MARKERS) + 1) for c in itertools.combinations(sorted(MARKERS), n)]


def whole(text: str) -> Iterator[str]:
    """The marker expression of every pytest command in `text` that leaves out nothing but by markers."""
    for found in COMMAND.finditer(text):
        arguments = shlex.split(f"{OPTIONS['addopts']} {found['arguments']}", comments=True)
        if any("tests/" in a or a in ("-k", "--deselect", "--ignore", "--lf") for a in arguments):
            continue
        yield arguments[len(arguments) - arguments[::-1].index("-m")]  # pytest takes the last


@dataclass(frozen=True)
class Marked:
    """How an expression asks a test for its markers."""

    markers: frozenset[str]

    def __call__(self, name: str, /, **_: object) -> bool:
        return name in self.markers


def covered(expressions: list[str]) -> set[frozenset[str]]:
    """The combinations of markers that one of the expressions selects."""
    return {m for m in marks() for e in expressions if not e or Expression.compile(e).evaluate(Marked(m))}


def test_plain_pytest_has_what_is_not_marked() -> None:
    assert list(whole("python -m pytest")) == ["not slow and not nightly"]
    assert covered(["not slow and not nightly"]) == {frozenset()}


def test_the_gate_has_all_but_what_is_nightly() -> None:
    text, nightly = (ROOT / ".ci/run").read_text(encoding="utf-8"), 'if [ "${1:-}" = nightly ]; then'
    assert text.count(nightly) == 1
    always = text.partition(nightly)[0]
    assert covered(list(whole(always))) == {m for m in marks() if "nightly" not in m}
    assert covered(list(whole(text))) == set(marks())


@pytest.mark.parametrize("job", ["linux", "without-clang", "macos"])
def test_every_night_everything_is_run(job: str) -> None:
    text = NIGHTLY.read_text(encoding="utf-8")
    assert "schedule:" in text
    (steps,) = re.findall(rf"^  {job}:.*\n((?:    .*\n)+)", text, re.MULTILINE)
    commands = re.findall(r"- run: (.*)", steps)
    assert ".ci/run nightly" in commands or covered([e for c in commands for e in whole(c)]) == set(marks())


def test_nothing_else_selects_tests() -> None:
    assert {"slow", "nightly"} == MARKERS
    assert OPTIONS["testpaths"] == ["tests"]
    selects = re.compile(r"collect_ignore|pytest_collection_modifyitems|pytest_ignore_collect|__test__ = False")
    files = [p for p in (ROOT / "tests").rglob("*.py") if p != Path(__file__)]
    assert [p for p in files if selects.search(p.read_text(encoding="utf-8"))] == []
