"""Read-only access to one store. A reader never raises and never writes: what is wrong is noted, and has no rows."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from db.errors import StoreError
from db.guard import Guard
from db.paths import sqlite_path
from db.queries import REVISION, REVISIONS

Rows = list[tuple[Any, ...]]

BUSY_SECONDS = 0.25  # writers hold readers up only while the last of them closes the file
_SETTLED_NS = 1_000_000_000  # far above a file system's resolution of time: a later change has another date
_NO_JOURNAL = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_INHERITED: list[sqlite3.Connection] = []  # of a parent process: SQLite forbids to use or close them in a child
_Stamp = tuple[int, int, int]  # date in nanoseconds, bytes, inode


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
    """One connection, opened by the first question and shared by threads under a lock; a forked child opens its own.

    Joining the journal of a WAL database costs a third of a first lookup, and makes files beside the store. A store
    that nobody is writing (no journal, unchanged for a while) is opened without: SQLite calls that immutable, and does
    not notice if it proves wrong. So every answer is followed by a look at the file, and if that has changed, or a
    journal has appeared, the answer is dropped and the question asked again through the journal, for good.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._name = os.fspath(path)
        self._guard = Guard()
        self._connection: sqlite3.Connection | None = None
        self._opened_by: int | None = None
        self._still: _Stamp | None = None  # the file as it was when it was taken for immutable

    def rows(self, sql: str, asked: Mapping[str, Any]) -> Rows:
        with self._guard.lock:
            try:
                if self._opened_by != os.getpid():
                    self._open()
                return self._rows(sql, asked)
            except sqlite3.Error as e:
                self.note(f"store {self.path}: {e}")
                return []

    def __del__(self) -> None:
        # A connection is part of a reference cycle with its own statement cache, so it would be closed late and warn.
        if self._connection is not None and self._opened_by == os.getpid():
            self._connection.close()

    def _rows(self, sql: str, asked: Mapping[str, Any]) -> Rows:
        if self._still is not None:
            try:
                answer = self._ask(sql, asked)
                if _stamp(self._name) == self._still:
                    return answer
            except sqlite3.Error:
                if _stamp(self._name) == self._still:
                    raise
            self._still = None
            self._connect("mode=ro")
        return self._ask(sql, asked)

    def _ask(self, sql: str, asked: Mapping[str, Any]) -> Rows:
        return [] if self._connection is None else self._connection.execute(sql, asked).fetchall()

    def _open(self) -> None:
        if self._connection is not None:
            _INHERITED.append(self._connection)
        self._opened_by, self._connection, self._still = os.getpid(), None, None
        stamp = _stamp(self._name)
        if stamp is None and not os.path.exists(self._name):
            return self.note(f"store {self.path}: no such file")
        if stamp is None or time.time_ns() - stamp[0] < _SETTLED_NS:
            try:
                return self._connect("mode=ro")
            except sqlite3.OperationalError as e:  # a folder that forbids the files of WAL mode, to writers as well
                if stamp is None or e.sqlite_errorcode & 0xFF not in _NO_JOURNAL:
                    raise
        self._still = stamp
        return self._connect("mode=ro&immutable=1")

    def _connect(self, options: str) -> None:
        """Sets the connection, or none if the schema is not the one that the queries know."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        uri = f"file:{quote(os.fsencode(os.path.abspath(self._name)))}?{options}"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            row = connection.execute(REVISION).fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        if row == (REVISIONS[-1],):
            self._connection = connection
        else:
            connection.close()
            self.note(_wrong_schema(self.path, row and row[0]))


def _stamp(name: str) -> _Stamp | None:
    """What changes when the file does; None while a journal holds some of the truth."""
    try:
        for journal in (f"{name}-wal", f"{name}-journal"):
            if os.access(journal, os.F_OK) and os.path.getsize(journal):  # access: a third of what exists() takes
                return None
        found = os.stat(name)
    except OSError:  # gone in between
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class ServerReader(Reader):
    """A store that is no SQLite file. SQLAlchemy is imported only if there is one, by the first question."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._guard = Guard()
        self._engine: Any = None
        self._opened_by: int | None = None

    def rows(self, sql: str, asked: Mapping[str, Any]) -> Rows:
        try:
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as e:
            self.note(f"a store URL needs SQLAlchemy: {e}")
            return []
        with self._guard.lock:
            try:
                if self._opened_by != os.getpid():
                    self._opened_by, self._engine = os.getpid(), self._open()
                return [] if self._engine is None else self._ask(sql, asked)
            except (SQLAlchemyError, ImportError) as e:
                self.note(f"store URL cannot be read: {e}")
                return []

    def _open(self) -> Any:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        # a reader has no end at which pooled connections would be closed, and asks seldom
        self._engine = create_engine(self._url, poolclass=NullPool)
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
    except StoreError as e:
        return Reader(str(e))
    return ServerReader(str(where)) if path is None else SqliteReader(path)


def _wrong_schema(where: object, found: object) -> str:
    remedy = "a sweep migrates it" if found in REVISIONS else "upgrade tinygrad-autotune"
    return f"store {where}: schema {found!r}, not {REVISIONS[-1]!r}; {remedy}"
