"""Results in and out of a store, as a file of JSON or SQLite. What such a file may hold is for `db.exchange` to say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from db.codec import schedule_digest
from db.errors import SettingError, StoreError
from db.exchange import ExchangeError, export_payload, load_json, readable, write_sqlite
from db.files import read_file, replacing
from db.foreign import read_store
from db.paths import sqlite_path
from db.payload import MAX_TEXT, Payload
from db.records import Stage, Target
from db.store import Recorded, Store, Winner

SQLITE_SUFFIXES = (".sqlite", ".sqlite3", ".db")


def is_sqlite(path: str) -> bool:
    return Path(path).suffix.lower() in SQLITE_SUFFIXES


def served(store: Store, target: str | None = None) -> tuple[Winner, ...]:
    """What is served on targets whose name contains `target`, or on all. Raises SettingError for a name that no target
    has."""
    winners = store.finals()
    if target is None or not winners:
        return winners
    known = {w.row.measurement.target for w in winners}
    fitting = {t for t in known if target.lower() in str(t).lower()}
    if not fitting:
        raise SettingError(f"--target {target!r} fits no target; there are {'; '.join(sorted(map(str, known)))}")
    return tuple(w for w in winners if w.row.measurement.target in fitting)


def served_if_any(place: str | None) -> tuple[Winner, ...]:
    """What the store at `place` serves; a store that is not there is not created and serves nothing."""
    return Store.read(place, missing_ok=True).finals()


def export(store: Store, target: str | None, op: str | None, format: str | None) -> dict[str, Any]:
    """The payload of what is served. Raises SettingError unless `target` is part of just one target's name."""
    return export_payload(store, None if target is None else one_target(store, target), op, format)


def one_target(store: Store, name: str) -> Target:
    """The one target whose name contains `name`, of those that something is served for. Raises SettingError."""
    targets = {w.row.measurement.target for w in served(store, name)}
    if len(targets) != 1:
        names = "; ".join(sorted(map(str, targets))) or "none, for nothing is served"
        raise SettingError(f"--target {name!r} must fit one target, it fits {names}")
    return targets.pop()


def write(payload: dict[str, Any], path: str) -> None:
    """Writes a payload to a file, as a store if the suffix says so; until it is whole, an earlier file stays as it was.

    Raises StoreError or FileError if it cannot be written.
    """
    if is_sqlite(path):
        write_sqlite(path, payload)
        return
    with replacing(path) as draft:
        draft.write_text(readable(payload) + "\n", encoding="utf-8")


def refuse_itself(store: Store, path: str) -> None:
    """Raises StoreError if `path` is the store's own file: an export has what is served, and the rest would be lost."""
    own = sqlite_path(store.where)
    if own is not None and os.path.exists(own) and os.path.exists(path) and os.path.samefile(own, path):
        raise StoreError(f"{path}: the store that is exported; the export would replace it. Choose another name")


def read(path: str, stdin: Callable[[int], str]) -> object:
    """The payload in a file; of "-" that in the text that `stdin` returns, given how many bytes are read at most.

    Raises ExchangeError, StoreError, FileError, and what `stdin` raises. Nothing of it is checked yet.
    """
    if is_sqlite(path):
        return read_store(path)
    try:
        return load_json(stdin(MAX_TEXT) if path == "-" else read_file(path, MAX_TEXT).decode())
    except UnicodeDecodeError as e:
        raise ExchangeError(f"{path}: not JSON, not even UTF-8 text (byte {e.start})") from e
    except ExchangeError as e:
        raise ExchangeError(f"{path}: {e}") from e


def winners(payload: Payload) -> tuple[Winner, ...]:
    """A payload's rows as a store gives them out: each final with its baselines."""
    runs = {run.id: (run, started_at) for run, started_at in payload.runs}
    groups: dict[tuple[object, ...], list[Recorded]] = {}
    for f in payload.facts:
        m = f.measurement
        row = Recorded(0, f.created_at, m, *runs[f.run_id], "imported")
        groups.setdefault((m.workload, m.target, m.kernel_digest, f.run_id), []).append(row)
    return tuple(Winner(final, tuple(baselines)) for final, *baselines in groups.values())


def claims_of(store: Store, payload: Payload) -> tuple[Winner, ...]:
    """Those of a payload's finals, which the store has, that are not served because nobody has checked them here."""
    facts = {(f.run_id, f.created_at, f.measurement) for f in payload.facts}
    return tuple(c for c in store.claims() if (c.row.run.id, c.row.created_at, c.row.measurement) in facts)


def found_wrong(store: Store, payload: Payload) -> int:
    """How many of a payload's finals this machine found wrong before: they are never served."""
    finals = [f.measurement for f in payload.facts if f.measurement.stage is Stage.FINAL]
    bad = {key: store.known_bad(*key) for key in {(m.workload, m.target, m.kernel_digest) for m in finals}}
    return sum(schedule_digest(m.schedule) in bad[m.workload, m.target, m.kernel_digest] for m in finals)
