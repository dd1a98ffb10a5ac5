"""Opening a store for reading."""

from __future__ import annotations

from pathlib import Path

from db.readers import reader


def test_a_reader_opens_nothing_until_asked(tmp_path: Path) -> None:
    assert reader(tmp_path / "none").problems == []
