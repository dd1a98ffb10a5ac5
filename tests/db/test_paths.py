"""Where a store is, from a path, a URL or the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.store_rows import KERNEL, TARGET, WORKLOAD, fact, opened

from db.lookup import Lookup
from db.paths import default_store, sqlite_path


def test_default_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUTOTUNE_DB", str(tmp_path / "x.sqlite"))
    assert default_store() == str(tmp_path / "x.sqlite")
    opened(Path(default_store()), fact())
    assert Lookup().exact(WORKLOAD, TARGET, KERNEL) is not None
    monkeypatch.setenv("AUTOTUNE_DB", "  ")
    assert default_store().endswith(os.path.join("tinygrad-autotune", "store.sqlite"))


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ("a/b.sqlite", "a/b.sqlite"),
        ("/a b%20?#.sqlite", "/a b%20?#.sqlite"),
        ("sqlite:////a/b.sqlite", "/a/b.sqlite"),
        ("sqlite:///b.sqlite?timeout=5", "b.sqlite"),
        ("sqlite+pysqlite:////a/b.sqlite", "/a/b.sqlite"),
        ("postgresql://u:p@host/db", None),
    ],
)
def test_sqlite_path(where: str, path: str | None) -> None:
    assert sqlite_path(where) == (None if path is None else Path(path))
