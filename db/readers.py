"""Read-only access to one store. A reader never raises and never writes: what is wrong is noted, and has no rows."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from db.errors import StoreError
from db.guard import Guard
from db.paths import sqlite_path
from db.queries import REVISION, REVISIONS
from db.sqlite_files import (
    FAILURES,
    STEPS,
    Look,
    Opened,
    computed_column,
    is_locked,
    look,
    open_read_only,
    reason,
)

Rows = list[tuple[Any, ...]]

_ATTEMPTS = 5
_LOCKED_SECONDS, _FAILED_SECONDS = 5.0, 60.0  # until what could not be read is tried again
_INHERITED: list[Opened] = []  # of a parent process: SQLite forbids to use or close them in a child


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

    Every answer is followed by a look at the file. If that has changed, or the name has come to mean another file, the
    answer is dropped and the question asked again through a new connection. So a store that nobody is writing may be
    opened as SQLite's immutable, which is faster and makes no files beside it.

    A file that could not be read is not tried again before it changes; a locked one is, but seldom.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._name = os.fspath(path)
        self._guard = Guard()
        self._opened: Opened | None = None
        self._opened_by: int | None = None
        self._unreadable: Look | None = None
        self._locked_at = -inf  # seconds of time.monotonic

    def rows(self, sql: str, asked: Mapping[str, Any]) -> Rows:
        with self._guard.lock:
            for _ in range(_ATTEMPTS):
                try:
                    if (opened := self._open()) is None:
                        return []
                    opened.allowance.steps = STEPS
                    answer = opened.connection.execute(sql, asked).fetchall()
                    if opened.unchanged():
                        return answer
                except (*FAILURES, OSError, StoreError) as e:
                    if self._opened is None or self._opened.unchanged():
                        self._give_up(e)
                        return []
                self._close()
            self.note(f"store {self.path}: it changes faster than it can be read")
            return []

    def __del__(self) -> None:
        # A connection is part of a reference cycle with its own statement cache, so it would be closed late and warn.
        self._close()

    def _open(self) -> Opened | None:
        """The connection, made if need be; None where that is known to fail."""
        if self._opened is not None and self._opened_by == os.getpid():
            return self._opened
        self._close()
        if self._unreadable is not None and self._unreadable == look(self._name):
            return None
        if time.monotonic() - self._locked_at < _LOCKED_SECONDS:
            return None
        self._opened_by = os.getpid()
        self._opened = open_read_only(self._name, prefer_still=True)
        row = self._opened.connection.execute(REVISION).fetchone()
        if row != (REVISIONS[-1],):
            raise StoreError(_wrong_schema(self.path, row and row[0]))
        if odd := computed_column(self._opened.connection):
            raise StoreError(f"store {self.path}: it has a computed column {odd}, which no store has")
        return self._opened

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and self._opened_by == os.getpid():
            opened.connection.close()
        elif opened is not None:
            _INHERITED.append(opened)

    def _give_up(self, e: Exception) -> None:
        if is_locked(e):
            self._locked_at = time.monotonic()
        else:
            self._unreadable = self._look()
        self._close()
        self.note(str(e) if isinstance(e, StoreError) else f"store {self.path}: {reason(e)}")

    def _look(self) -> Look | None:
        try:
            return look(self._name) if self._opened is None else self._opened.look
        except (OSError, StoreError):
            return None  # what is no file is found to be none each time, soon


class ServerReader(Reader):
    """A store that is no SQLite file. SQLAlchemy is imported only if there is one, by the first question. A server that
    could not be asked is left alone for a while."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._guard = Guard()
        self._engine: Any = None
        self._opened_by: int | None = None
        self._failed_at = -inf  # seconds of time.monotonic

    def rows(self, sql: str, asked: Mapping[str, Any]) -> Rows:
        with self._guard.lock:
            if time.monotonic() - self._failed_at < _FAILED_SECONDS:
                return []
            try:
                if self._opened_by != os.getpid():
                    self._opened_by, self._engine = os.getpid(), None
                    self._engine = self._open()
                return self._ask(self._engine, sql, asked)
            except StoreError as e:
                self.note(str(e))
            except Exception as e:  # noqa: BLE001 - a driver is anybody's code, and kernels are built without a store
                self.note(f"store URL cannot be read: {type(e).__name__}: {' '.join(str(e).split()):.200}")
            self._opened_by, self._failed_at = None, time.monotonic()
            return []

    def _open(self) -> Any:
        from db.engine import server_engine

        engine = server_engine(self._url)
        found = self._ask(engine, REVISION, {})
        if found != [(REVISIONS[-1],)]:
            raise StoreError(_wrong_schema(engine.url.render_as_string(), found[0][0] if found else None))
        return engine

    def _ask(self, engine: Any, sql: str, asked: Mapping[str, Any]) -> Rows:
        from sqlalchemy import text

        with engine.connect() as connection:
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
