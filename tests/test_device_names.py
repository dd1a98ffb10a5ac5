"""No device's name is compared or listed outside of `kernels.backends`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels.backends import BACKENDS

ROOT = Path(__file__).parents[1]
NAME = re.compile(rf"({'|'.join(row.device for row in BACKENDS.values())})(:.*)?", re.DOTALL)
EXCEPTIONS = {
    "kernels/backends.py": "the table itself",
    "autotune/metalsim/": "it stands in for METAL alone, and imports nothing of ours",
}


def names(source: str) -> list[tuple[int, str]]:
    """(line, text) of every string that is a device's name or begins like "CUDA:". What a docstring or a message says
    is none: a device's name has a text around it there, and so has a part of an f-string."""
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts
        if NAME.fullmatch(node.value)
    ]


def sources() -> Iterator[Path]:
    for package in ("kernels", "autotune"):
        yield from sorted((ROOT / package).rglob("*.py"))


def test_device_names_are_in_one_table() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path in sources()
        if not str(path.relative_to(ROOT)).startswith(tuple(EXCEPTIONS))
        for line, text in names(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'device.startswith("CPU")',
        'device != "METAL"',
        'device in ("X", "NV")',
        'T = {"CUDA": 16}',
        'T = frozenset({"CUDA:PTX"})',
        'match device:\n    case "CL":\n        pass',
        'BACKEND = "METAL"',
    ],
)
def test_a_name_is_seen_wherever_it_is_compared_or_kept(source: str) -> None:
    assert len(names(source)) == 1


@pytest.mark.parametrize(
    "source", ['"""METAL first, then CUDA."""', 'raise E("CUDA needs a driver")', 'f"NV{driver}"', 'F = {"NVFP4": 1}']
)
def test_a_text_about_a_device_is_no_name(source: str) -> None:
    assert names(source) == []


def test_every_exception_is_one() -> None:
    for path in EXCEPTIONS:
        files = [ROOT / path] if path.endswith(".py") else list((ROOT / path).rglob("*.py"))
        assert any(names(file.read_text()) for file in files), f"{path} needs no exception"
