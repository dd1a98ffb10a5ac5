"""Every bench can be imported, and prints its options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHES = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [BENCHES[0], *(pytest.param(name, marks=pytest.mark.nightly) for name in BENCHES[1:])])
def test_help(name: str) -> None:
    command = [sys.executable, "-m", f"bench.{name}", "--help"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"DEV": "CPU"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"-m bench.{name}" in done.stdout
