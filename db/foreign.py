"""Somebody else's SQLite store, read as what it is: a file that anything may be in.

Its rows are copied, as data, into a new store whose tables this program made. No view, trigger or expression of the
file is ever evaluated.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from db.engine import READ_SECONDS, upgrade
from db.errors import StoreError, shown
from db.exchange import export_payload
from db.files import regular_size
from db.queries import REVISIONS, TABLES
from db.sqlite_files import computed_column, copy_database, reason
from db.store import Store

MAX_NBYTES = 1 << 30
MAX_FIELD_NBYTES = 1 << 22
SECONDS = 60.0
_READS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE,  # of sqlite_sequence
    sqlite3.SQLITE_TRANSACTION,
}


def read_store(path: str | Path) -> dict[str, Any]:
    """The payload of what the store at `path` serves, or would serve if its imports were right; it is only read.

    Raises StoreError or FileError for a file that is no store, damaged, newer, or larger than MAX_NBYTES; of its
    journals as well.
    """
    path = Path(path).expanduser()
    regular_size(path, MAX_NBYTES)
    for journal in (f"{os.path.realpath(path)}-wal", f"{os.path.realpath(path)}-journal"):  # SQLite reads these too
        if os.path.exists(journal):
            regular_size(journal, MAX_NBYTES)
    with _reported(path), tempfile.TemporaryDirectory() as folder:
        snapshot, draft = Path(folder, "snapshot.sqlite"), Path(folder, "copy.sqlite")
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=READ_SECONDS)) as source,
            closing(sqlite3.connect(snapshot)) as sink,
        ):
            copy_database(source, sink)
        with closing(_guarded(snapshot)) as theirs:
            revision = _revision(theirs)
        _make(draft, revision)
        columns = {table: _columns(draft, table) for table in TABLES}
        with closing(sqlite3.connect(snapshot)) as theirs:
            if odd := computed_column(theirs):
                raise StoreError(f"it has a computed column {shown(odd)}, which no store has")
        with closing(_guarded(draft, snapshot)) as ours, ours:
            for table in TABLES:
                names = ", ".join(columns[table])
                ours.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM theirs.{table}")
        store = Store.open(draft)
        payload = export_payload(store, claims=True)
        for problem in store.problems:
            raise StoreError(problem.removeprefix(f"store {store.where}: "))
        return payload


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as e:
        raise StoreError(f"store {path}: {reason(e)}") from e
    except StoreError as e:
        raise StoreError(f"store {path}: {e}") from e
    except OSError as e:
        raise StoreError(f"store {path}: it cannot be copied to a temporary folder: {e.strerror or e}") from e
    except (ValueError, TypeError, LookupError, RecursionError) as e:  # a migration met JSON of no version of ours
        raise StoreError(f"store {path}: a row cannot be read: {e}") from e


def _guarded(main: Path, theirs: Path | None = None) -> sqlite3.Connection:
    """A connection on which nothing but plain reads of tables, and inserts into `main`, can be prepared."""
    connection = sqlite3.connect(main)
    if theirs is not None:
        connection.execute("ATTACH ? AS theirs", (str(theirs),))
        connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_FIELD_NBYTES)
    end = time.monotonic() + SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > end, 100_000)
    connection.set_authorizer(_permit)
    return connection


def _permit(action: int, what: str | None, _: str | None, __: str | None, within: str | None) -> int:
    """`within`: the view or trigger that asks."""
    return sqlite3.SQLITE_OK if action in _READS and within is None else sqlite3.SQLITE_DENY


def _revision(theirs: sqlite3.Connection) -> str:
    kinds = theirs.execute("SELECT type, name FROM sqlite_master").fetchall()
    if odd := [(kind, name) for kind, name in kinds if kind not in ("table", "index")]:
        raise StoreError(f"it has a {odd[0][0]} {shown(odd[0][1])}, which no store has")
    tables = {name for kind, name in kinds if kind == "table"}
    if missing := {"alembic_version", *TABLES} - tables:
        raise StoreError(f"a database of something else: it has no table {min(missing)}")
    found = theirs.execute("SELECT version_num FROM alembic_version").fetchmany(2)
    if len(found) != 1 or found[0][0] not in REVISIONS:
        raise StoreError(f"schema {[row[0] for row in found]!r:.80} is not one of {', '.join(REVISIONS)}")
    return str(found[0][0])


def _make(draft: Path, revision: str) -> None:
    engine = create_engine(f"sqlite:///{draft}", poolclass=NullPool)
    with engine.begin() as connection:
        upgrade(connection, revision)


def _columns(path: Path, table: str) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
