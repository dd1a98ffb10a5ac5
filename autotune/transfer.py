"""Results in and out of a store, as a file of JSON or SQLite. What such a file may hold is for `db.exchange` to say."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from db.errors import StoreError
from db.exchange import ExchangeError, export_payload, load_json, write_sqlite
from db.store import Store, Winner

SQLITE_SUFFIXES = (".sqlite", ".sqlite3", ".db")


def is_sqlite(path: str) -> bool:
    return Path(path).suffix.lower() in SQLITE_SUFFIXES


def read_sqlite(path: str | Path) -> dict[str, Any]:
    """What the store at `path` serves; the file is only read. Raises StoreError if it is no store or cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.sqlite")  # opening a store migrates it, and this one is somebody else's
        uri = f"{Path(path).expanduser().absolute().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as source, closing(sqlite3.connect(copy)) as sink:
                source.backup(sink)
        except sqlite3.Error as e:
            raise StoreError(f"store {path}: {e}") from e
        return export_payload(Store.open(copy))


def served(store: Store, target: str | None = None) -> tuple[Winner, ...]:
    """What is served on targets whose name contains `target`, or on all."""
    return tuple(w for w in store.finals() if target is None or target.lower() in str(w.row.measurement.target).lower())


def served_if_any(place: str | None) -> tuple[Winner, ...]:
    """What the store at `place` serves; a store that is not there is not created and serves nothing."""
    return Store.read(place, missing_ok=True).finals()


def export(store: Store, target: str | None, op: str | None, format: str | None) -> dict[str, Any]:
    """The payload of what is served. Raises ExchangeError unless `target` is part of just one target's name."""
    if target is None:
        return export_payload(store, None, op, format)
    targets = {w.row.measurement.target for w in served(store, target)}
    if len(targets) != 1:
        names = "; ".join(sorted(map(str, targets))) or "no stored target"
        raise ExchangeError(f"--target {target!r} must fit one target, it fits {names}")
    return export_payload(store, targets.pop(), op, format)


def write(payload: dict[str, Any], path: str) -> None:
    """Writes a payload to a file, as a store if the suffix says so. Raises StoreError if it cannot be written."""
    if is_sqlite(path):
        write_sqlite(path, payload)
        return
    try:
        Path(path).write_text(json.dumps(payload, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as e:
        raise StoreError(f"{path}: {e.strerror}") from e


def read(path: str, stdin: Callable[[], str]) -> object:
    """The payload in a file; of "-" that in the text that `stdin` returns. Raises ExchangeError, StoreError, and what
    `stdin` raises. Nothing of it is checked yet."""
    if is_sqlite(path):
        return read_sqlite(path)
    try:
        return load_json(stdin() if path == "-" else Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise ExchangeError(f"{path}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise ExchangeError(f"{path}: not JSON, not even UTF-8 text (byte {e.start})") from e
    except ExchangeError as e:
        raise ExchangeError(f"{path}: {e}") from e
