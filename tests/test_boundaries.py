"""Where tinygrad's internals may be imported, and that the page on upgrading it names what there is."""

import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/upgrading-tinygrad.md"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def rows() -> list[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]


def test_every_submodule_of_tinygrad_is_banned() -> None:
    spec = find_spec("tinygrad")
    assert spec is not None
    folders = (p.name for p in Path(str(spec.origin)).parent.iterdir() if any(p.glob("*.py")))
    there = {*folders, *(module.name for module in iter_modules(spec.submodule_search_locations))}
    banned = PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert {f"tinygrad.{name}" for name in there} <= set(banned)


def is_refused(path: str, line: str) -> bool:
    """Whether ruff, as this project sets it up, refuses a line in a file."""
    command = [sys.executable, "-m", "ruff", "check", "-q", "--select", "TID251", "--stdin-filename", path, "-"]
    done = subprocess.run(command, input=f"{line}\n", cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == bool(done.stdout), done.stderr
    return "TID251" in done.stdout


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("kernels/serve/new.py", True),
        ("kernels/ops/linear/new.py", True),
        ("autotune/new.py", True),
        ("db/new.py", True),
        ("kernels/tinygrad/new.py", False),
        ("autotune/tinygrad_api/new.py", False),
        ("autotune/metalsim/new.py", False),
    ],
)
def test_internals_are_refused_elsewhere(path: str, refused: bool) -> None:
    for line in ("from tinygrad.uop.ops import Ops", "from tinygrad import helpers", "import tinygrad.nn"):
        assert is_refused(path, line) == refused


def test_the_public_names_are_allowed() -> None:
    assert not is_refused("kernels/new.py", "from tinygrad import Device, Tensor, TinyJit, UOp, dtypes")


def test_every_row_of_the_page_has_a_place_and_a_test_or_a_reason() -> None:
    assert len(rows()) > 20
    for row in rows():
        fault, place, test = row
        assert fault
        assert re.search(r"`[^`]+\.py`", place), row
        assert test.startswith(("none", "`tests/")), row


def test_every_file_and_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.(?:py|toml|md))(?:::(\w+))?`", PAGE.read_text(encoding="utf-8"))
    assert named
    for path, test in named:
        assert (ROOT / path).is_file(), path
        if test:
            assert f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"


def test_every_fault_that_has_a_test_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for test in re.findall(r"^def (test_\w+)", (ROOT / "tests/kernels/test_tinygrad_faults.py").read_text(), re.M):
        assert test in page
