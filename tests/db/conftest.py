"""Places for the two stores that a lookup reads. Nothing is there yet."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return tmp_path / "user.sqlite"


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    return tmp_path / "packaged.sqlite"
