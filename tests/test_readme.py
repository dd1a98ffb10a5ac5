"""The README is true: its commands are those of --help, its Python runs, what it names exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.cpu_device import cpu
from support.readme import README, with_commands

from kernels.formats import FORMATS
from kernels.models.architectures import ARCHITECTURES
from kernels.serve.resolution import STEPS

TEXT = README.read_text(encoding="utf-8")
ROOT = README.parent


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_its_commands_are_those_of_help() -> None:
    assert with_commands(TEXT) == TEXT, "run: python tests/support/readme.py"


def test_its_python_runs(tmp_path: Path) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    choice = cpu()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DEV": choice.device, "AUTOTUNE_DB": str(tmp_path / "store.sqlite")}
    env |= {"CC": choice.cc} if choice.cc else {}
    source = f"from kernels.devices import activate, choose_device\nactivate(choose_device())\n{source}"
    source += "\nassert y.shape == (3, n) and not y.numpy().any()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", source], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_lists_every_variable_that_is_read() -> None:
    sources = [
        p.read_text(encoding="utf-8")
        for folder in ("autotune", "kernels", "db")
        for p in ROOT.glob(f"{folder}/**/*.py")
    ]
    read = set(re.findall(r"AUTOTUNE_[A-Z]+", "\n".join(sources)))
    assert read == set(re.findall(r"`(AUTOTUNE_[A-Z]+)`", section("Environment")))


def test_it_lists_every_bench() -> None:
    files = {str(p.relative_to(ROOT)) for p in ROOT.glob("bench/*.py") if p.name != "__init__.py"}
    assert files == set(re.findall(r"`(bench/\w+\.py)`", section("Numbers")))


def test_it_lists_the_lookup_steps_in_order() -> None:
    assert tuple(re.findall(r"^\d\. `(\w+)`", section("Which schedule a kernel gets"), re.MULTILINE)) == STEPS


@pytest.mark.parametrize(
    ("title", "names"), [("In Python", sorted(FORMATS)), ("What a model launches", sorted(ARCHITECTURES))]
)
def test_it_names_what_there_is(title: str, names: list[str]) -> None:
    assert all(re.search(rf"\b{name}\b", section(title)) for name in names)
