"""Read-only access to one store. A reader never raises and never writes: what is wrong is noted, and has no rows."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from db.paths import sqlite_path
from db.queries import REVISION, REVISIONS

Rows = list[tuple[Any, ...]]

BUSY_SECONDS = 0.25  # writers hold readers up only while the last of them closes the file


_NO_JOURNAL = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}


class Reader:
    """A reader of nothing, for a place that cannot be one; what it and its kin cannot do, they note in `problems`."""

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)

    def rows(self, sql: str, asked: Mapping[str, Any]) -> Rows:
        """The answer, in full; no rows where the store cannot be read."""
        return []

    def note(self, problem: str) -> None:
        if problem not in self.problems:  # one line each, however often it is met
            self.problems.append(problem)


class SqliteReader(Reader):
    """One connection, opened by the first question and shared by threads under a lock; a forked child opens its own."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened_by: int | None = None

    def rows(self, sql: str, asked: Mapping[str, Any]) -> Rows:
        with self._lock:
            try:
                if self._opened_by != os.getpid():
                    self._opened_by, self._connection = os.getpid(), self._open()
                return [] if self._connection is None else self._connection.execute(sql, asked).fetchall()
            except sqlite3.Error as e:
                self.note(f"store {self.path}: {e}")
                return []

    def _open(self) -> sqlite3.Connection | None:
        if not self.path.exists():
            self.note(f"store {self.path}: no such file")
            return None
        try:
            return self._connect("mode=ro")
        except sqlite3.OperationalError as e:
            # In WAL mode even a reader makes files beside the store. In a folder that forbids that, and with no
            # journal left there, nobody is writing either, and the file alone is the whole truth.
            if e.sqlite_errorcode & 0xFF not in _NO_JOURNAL or Path(f"{self.path}-wal").exists():
                raise
            return self._connect("mode=ro&immutable=1")

    def _connect(self, options: str) -> sqlite3.Connection | None:
        uri = f"{self.path.absolute().as_uri()}?{options}"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            row = connection.execute(REVISION).fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        found = row and row[0]
        if found == REVISIONS[-1]:
            return connection
        connection.close()
        self.note(_wrong_schema(self.path, found))
        return None


class ServerReader(Reader):
    """A store that is no SQLite file. SQLAlchemy is imported only if there is one, by the first question."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._lock = threading.Lock()
        self._engine: Any = None
        self._opened_by: int | None = None

    def rows(self, sql: str, asked: Mapping[str, Any]) -> Rows:
        try:
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as e:
            self.note(f"a store URL needs SQLAlchemy: {e}")
            return []
        with self._lock:
            try:
                if self._opened_by != os.getpid():
                    self._opened_by, self._engine = os.getpid(), self._open()
                return [] if self._engine is None else self._ask(sql, asked)
            except (SQLAlchemyError, ImportError) as e:
                self.note(f"store URL cannot be read: {e}")
                return []

    def _open(self) -> Any:
        from sqlalchemy import create_engine

        self._engine = create_engine(self._url)
        found = self._ask(REVISION, {})
        if found == [(REVISIONS[-1],)]:
            return self._engine
        self.note(_wrong_schema(self._engine.url.render_as_string(), found[0][0] if found else None))
        return None

    def _ask(self, sql: str, asked: Mapping[str, Any]) -> Rows:
        from sqlalchemy import text

        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql), asked)]


def reader(where: str | Path) -> Reader:
    """A reader of the store at a path or an SQLAlchemy URL. Opens nothing yet."""
    try:
        path = sqlite_path(where)
    except ValueError as e:
        return Reader(str(e))
    return ServerReader(str(where)) if path is None else SqliteReader(path)


def _wrong_schema(where: object, found: object) -> str:
    remedy = "a sweep migrates it" if found in REVISIONS else "upgrade tinygrad-autotune"
    return f"store {where}: schema {found!r}, not {REVISIONS[-1]!r}; {remedy}"
