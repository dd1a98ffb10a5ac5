"""Read-only access to one store. A reader never raises and never writes: what is wrong is noted, and has no rows."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from db.errors import StoreError
from db.guard import Guard
from db.paths import sqlite_name
from db.queries import READABLE, REVISION, REVISIONS, SERVED
from db.sqlite_files import (
    FAILURES,
    FileState,
    Opened,
    computed_column,
    file_state,
    is_locked,
    open_read_only,
    reason,
)

Row = tuple[Any, ...]
T = TypeVar("T")

_ATTEMPTS = 5
_STATEMENT_SECONDS = 3  # of a server for a question, which takes it milliseconds
_ANSWER_SECONDS = 8.0  # of a server for all: to be reached, to work, and to send
_LOCKED_SECONDS, _FAILED_SECONDS = 5.0, 60.0  # until what could not be read is tried again
_INHERITED: list[Opened] = []  # of a parent process: SQLite forbids to use or close them in a child


class Reader:
    """Has no rows: it stands for a place that cannot be a store. It and its subclasses note in `problems` why they
    could not read."""

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)

    def rows(self, sql: str, asked: Mapping[str, Any]) -> list[Row]:
        """The answer, in full; no rows where the store cannot be read."""
        return self.take(lambda: list(self.ask(sql, asked))) or []

    def take(self, of: Callable[[], T]) -> T | None:
        """What `of` makes of answers of `ask` and `served`, which only it may call; None where the store cannot be
        read. It may be called again where the store has changed meanwhile."""
        return None

    def ask(self, sql: str, asked: Mapping[str, Any]) -> Iterator[Row]:
        """The rows of an answer, read as they are asked for."""
        raise NotImplementedError

    def served(self, asked: Mapping[str, Any]) -> Row | None:
        """The row that answers SERVED; None where no such table is kept."""
        return None

    @property
    def refused(self) -> bool:
        """Whether the store could not be asked for a reason that may pass, and is left alone for a while."""
        return False

    def note(self, problem: str) -> None:
        if problem not in self.problems:  # one line each, however often it is met
            self.problems.append(problem)


class SqliteReader(Reader):
    """One connection, opened by the first question and shared by threads under a lock; a forked child opens its own.

    The file is checked after every answer. If that has changed, or the name has come to mean another file, the
    answer is dropped and the question asked again through a new connection. So a store that nobody is writing may be
    opened as SQLite's immutable, which is faster and makes no files beside it.

    A file that could not be read is not tried again before it changes; a locked one is, but seldom.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._guard = Guard()
        self._opened: Opened | None = None
        self._opened_by: int | None = None
        self._checked = False
        self._unreadable: FileState | None = None
        self._locked_at = -inf  # seconds of time.monotonic

    def take(self, of: Callable[[], T]) -> T | None:
        with self._guard.lock:
            for _ in range(_ATTEMPTS):
                try:
                    if (opened := self._open()) is None:
                        return None
                    answer = of()
                    if opened.unchanged():
                        return answer
                except (*FAILURES, OSError, StoreError) as e:
                    if self._opened is None or self._opened.unchanged():
                        self._give_up(e)
                        return None
                self._close()
            self.note(f"store {self._name}: it changes faster than it can be read")
            return None

    def ask(self, sql: str, asked: Mapping[str, Any]) -> Iterator[Row]:
        assert self._opened is not None
        if not self._checked:
            self._check(self._opened.connection)
            self._checked = True
        with closing(self._opened.execute(sql, asked)) as cursor:
            yield from cursor

    def served(self, asked: Mapping[str, Any]) -> Row | None:
        assert self._opened is not None
        try:
            return next(iter(self._opened.execute(SERVED, asked).fetchall()), None)
        except sqlite3.OperationalError as e:
            if str(e).startswith(("no such table", "no such column")):  # of an older schema, or a newer one
                return None
            raise

    @property
    def refused(self) -> bool:
        return time.monotonic() - self._locked_at < _LOCKED_SECONDS

    def __del__(self) -> None:
        # A connection is part of a reference cycle with its own statement cache, so it would be closed late and warn.
        self._close()

    def _open(self) -> Opened | None:
        """The connection, made if need be; None where that is known to fail."""
        if self._opened is not None and self._opened_by == os.getpid():
            return self._opened
        self._close()
        if self._unreadable is not None and self._unreadable == file_state(self._name):
            return None
        if self.refused:
            return None
        self._opened_by, self._checked = os.getpid(), False
        self._opened = open_read_only(self._name, prefer_still=True)
        return self._opened

    def _check(self, connection: sqlite3.Connection) -> None:
        """Raises StoreError for a file that is no store which these queries read."""
        if odd := computed_column(connection):
            raise StoreError(f"store {self._name}: it has a computed column {odd}, which no store has")
        row = connection.execute(REVISION).fetchone()
        if row is None or row[0] not in READABLE:
            raise StoreError(_wrong_schema(self._name, row and row[0]))

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
            self._unreadable = self._state()
        self._close()
        self.note(str(e) if isinstance(e, StoreError) else f"store {self._name}: {reason(e)}")

    def _state(self) -> FileState | None:
        try:
            return file_state(self._name) if self._opened is None else self._opened.state
        except (OSError, StoreError):
            return None  # what is no file is found to be none each time, soon


class ServerReader(Reader):
    """A store that is no SQLite file. SQLAlchemy is imported only if there is one, by the first question. A server that
    could not be asked, or did not answer in time, is left alone for a while."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._guard = Guard()
        self._engine: Any = None
        self._opened_by: int | None = None
        self._failed_at = -inf  # seconds of time.monotonic

    def take(self, of: Callable[[], T]) -> T | None:
        with self._guard.lock:
            if self.refused:
                return None
            try:
                if self._opened_by != os.getpid():
                    self._opened_by, self._engine = os.getpid(), None
                    self._engine = self._open()
                return of()
            except StoreError as e:
                self.note(str(e))
            except Exception as e:  # noqa: BLE001 - a driver is anybody's code, and kernels are built without a store
                said = getattr(e, "orig", None) or e  # the driver's own words, without the SQL
                self.note(f"store URL cannot be read: {type(said).__name__}: {' '.join(str(said).split()):.200}")
            self._opened_by, self._failed_at = None, time.monotonic()
            return None

    def ask(self, sql: str, asked: Mapping[str, Any]) -> Iterator[Row]:
        return iter(self._ask(self._engine, sql, asked))

    @property
    def refused(self) -> bool:
        return time.monotonic() - self._failed_at < _FAILED_SECONDS

    def _open(self) -> Any:
        from db.servers import server_engine

        engine = server_engine(self._url, _STATEMENT_SECONDS)
        found = self._ask(engine, REVISION, {})
        if not found or found[0][0] not in READABLE:
            raise StoreError(_wrong_schema(engine.url.render_as_string(), found[0][0] if found else None))
        return engine

    def _ask(self, engine: Any, sql: str, asked: Mapping[str, Any]) -> list[Row]:
        from sqlalchemy import text

        def answer() -> list[Row]:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(text(sql), asked)]

        return _within(_ANSWER_SECONDS, answer)


def _within(seconds: float, ask: Callable[[], T]) -> T:
    """What `ask` returns or raises; StoreError where that takes longer. It is then left to itself in its thread, which
    the end of the process does not wait for: a driver may wait without end for a server that is silent."""
    from concurrent.futures import Future

    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as e:  # noqa: BLE001 - it is raised where the answer is waited for
            answer.set_exception(e)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise StoreError(f"store URL cannot be read: no answer of the server within {seconds:g} s") from None


def reader(where: str | Path) -> Reader:
    """A reader of the store at a path or an SQLAlchemy URL. Opens nothing yet."""
    try:
        name = sqlite_name(where)
    except StoreError as e:
        return Reader(str(e))
    return ServerReader(str(where)) if name is None else SqliteReader(name)


def _wrong_schema(where: object, found: object) -> str:
    remedy = "a sweep migrates it" if found in REVISIONS else "upgrade tinygrad-autotune"
    return f"store {where}: schema {found!r}, not {REVISIONS[-1]!r}; {remedy}"
