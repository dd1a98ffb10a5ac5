"""An SQLite file that is only read: what its name means now, and connections that neither write nor hang.

The file itself is never opened here but by SQLite: to close any other handle of it would drop the locks that a
connection of this process holds.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from db.errors import StoreError
from db.mounts import mounted_by_itself
from db.queries import TABLES

BUSY_SECONDS = 0.25  # writers hold readers up only while the last of them closes the file
STEPS = 20_000_000  # of SQLite's virtual machine for a question, about a second; the largest takes a hundredth of that
_EVERY = 100_000  # steps from one look at what is left to the next
_LENGTH = 1 << 20  # bytes of a value; ours have a few thousand
_SETTLED_NS = 1_000_000_000  # far above a file system's resolution of time: a later change has another date
# a folder that forbids the files of WAL mode, to writers as well, or a file system without locks
_NO_JOURNAL = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL}
FAILURES = (sqlite3.Error, UnicodeError)  # the second where SQLite's message quotes what is no text
_READABLE = {*TABLES, "served", "rules", "alembic_version", "sqlite_master"}
_READ, _SELECT, _FUNCTION, _PRAGMA, _TRANSACTION = 20, 21, 31, 19, 22  # SQLite's action codes
_PRAGMAS = {"journal_mode", "read_uncommitted", "table_xinfo"}  # the second is SQLAlchemy's


class FileState(NamedTuple):
    """What changes when a file does: device, inode, names (hard links), dates of content and of status in nanoseconds,
    bytes."""

    device: int
    inode: int
    names: int
    modified_ns: int
    changed_ns: int
    nbytes: int


@dataclass
class Allowance:
    """Steps that the questions of a connection may still take."""

    steps: int = STEPS

    def spent(self) -> bool:
        """Called by SQLite now and then; it gives up where this is True."""
        self.steps -= _EVERY
        return self.steps < 0


@dataclass
class Opened:
    """A connection to the file at `path`, without symlinks, as it looked before it was opened. still: the connection
    takes the file for one that nobody writes, so what it answers counts only while the file looks like that."""

    name: str
    path: str
    state: FileState
    connection: sqlite3.Connection
    allowance: Allowance
    still: bool

    def execute(self, sql: str, asked: Mapping[str, Any]) -> sqlite3.Cursor:
        """Asks a question, with a new allowance. Raises sqlite3.Error."""
        self.allowance.steps = STEPS
        return self.connection.execute(sql, asked)

    def unchanged(self) -> bool:
        """Whether the name still means the file that was opened, and the file is as it was."""
        try:
            return file_state(self.name) == self.state and not (self.still and has_journal(self.path))
        except (OSError, StoreError):
            return False


def file_state(name: str) -> FileState:
    """Raises OSError, and StoreError for what is no file: to open a FIFO may take for ever."""
    found = os.stat(name)
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"store {name}: {'a folder' if stat.S_ISDIR(found.st_mode) else 'not a regular file'}")
    return FileState(found.st_dev, found.st_ino, found.st_nlink, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def has_journal(path: str) -> bool:
    """Whether some of the truth is in a journal beside a file. Raises OSError, and StoreError for a journal that is no
    file."""
    found = False
    for journal in (f"{path}-wal", f"{path}-journal"):  # both are looked at: SQLite opens both
        if os.access(journal, os.F_OK):  # takes a third of what exists() does
            with suppress(FileNotFoundError):  # a writer may have ended since
                found |= file_state(journal).nbytes > 0
    return found


def open_read_only(name: str, prefer_still: bool, seconds: float = BUSY_SECONDS, steps: int = STEPS) -> Opened:
    """Connects to a file. prefer_still: without its journal, where there is none and the file has not changed for a
    while; that takes a third less, and makes no files beside the store.

    Raises sqlite3.Error, OSError, StoreError.
    """
    seen = file_state(name)
    path = os.path.realpath(name) if os.path.islink(name) else name  # where SQLite's journals are
    journal = has_journal(path)
    allowance = Allowance(steps)

    def opened(still: bool) -> Opened:
        connection = connect(path, "mode=ro&immutable=1" if still else "mode=ro", seconds, allowance.spent)
        return Opened(name, path, seen, connection, allowance, still)

    if why := alias(path, seen.names):
        found = opened(still=False)
        if _is_wal(found.connection):
            found.connection.close()
            raise StoreError(f"store {name}: {why}. Its newest rows may be in a journal beside another of its names")
        return found
    if prefer_still and not journal and time.time_ns() - seen.modified_ns >= _SETTLED_NS:
        return opened(still=True)
    try:
        found = opened(still=False)
        _is_wal(found.connection)  # SQLite opens files at the first question
        return found
    except sqlite3.OperationalError as e:
        if journal or e.sqlite_errorcode & 0xFF not in _NO_JOURNAL:
            raise
        return opened(still=True)


def _is_wal(connection: sqlite3.Connection) -> bool:
    try:
        return bool(connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal")
    except FAILURES:
        connection.close()
        raise


def connect(path: str, options: str, seconds: float, spent: Callable[[], bool]) -> sqlite3.Connection:
    """Only tables are read, nothing is written, and SQLite gives up where `spent` says so."""
    uri = f"file:{quote(os.fsencode(path))}?{options}"
    connection = sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None, check_same_thread=False)
    connection.text_factory = tolerant_text
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LENGTH)
    connection.set_progress_handler(spent, _EVERY)
    connection.set_authorizer(_authorized)
    return connection


def copy_database(source: sqlite3.Connection, sink: sqlite3.Connection) -> None:
    """Copies a database, with what is in its journal. One that is locked is given up after the connection's own busy
    timeout; Python's `backup` alone asks again without end. Raises sqlite3.Error."""

    def told(status: int, *_: int) -> None:
        if status & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            source.execute("SELECT 1 FROM sqlite_master").close()  # says so, unless the lock is gone by now

    source.backup(sink, progress=told)


_AS = re.compile(r"as(?<!\was)\b")  # "as" first, so that little is looked at twice


def computed_column(connection: sqlite3.Connection) -> str | None:
    """A column of ours whose values an expression makes, if there is one. The limits of a connection do not hold within
    a function of SQLite, so that reading such a column may take minutes."""
    (schema,) = connection.execute("SELECT group_concat(sql, ' ') FROM sqlite_master").fetchone()
    if not _AS.search((schema or "").lower()):
        return None  # no table has such a column without the keyword, and asking each takes longer than a lookup
    for table in sorted(_READABLE):
        for _, name, *_, hidden in connection.execute(f"PRAGMA table_xinfo({table})"):
            if hidden:
                return f"{table}.{name}"
    return None


def is_locked(e: Exception) -> bool:
    return getattr(e, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def reason(e: Exception) -> str:
    """What is wrong with a store, out of an error of a connection to it."""
    if isinstance(e, FileNotFoundError):
        return "no such file"
    if isinstance(e, UnicodeError):
        return "database disk image is malformed"
    code = getattr(e, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_AUTH:
        return f"a view or function where only tables are read ({e})"
    if code == sqlite3.SQLITE_INTERRUPT:
        return "a question took too long, as in no store of ours"
    if code == sqlite3.SQLITE_NOTADB:
        return "not an SQLite database"
    if is_locked(e):
        return f"{e}: another program is writing to it, or its file system has no locks"
    if code is not None and code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL):
        return f"{e}; choose another place with --db or AUTOTUNE_DB"
    if code is not None and str(e).startswith(("no such table", "no such column")):
        return f"a database of something else ({e})"
    return getattr(e, "strerror", None) or str(e)


def tolerant_text(data: bytes) -> str:
    return data.decode(errors="replace")  # what is not UTF-8 does not fit its digest


def _authorized(action: int, first: str | None, second: str | None, _: str | None, source: str | None) -> int:
    """source: the view that a column is read for."""
    if source is not None:
        return sqlite3.SQLITE_DENY
    if action == _READ:
        return sqlite3.SQLITE_OK if first in _READABLE else sqlite3.SQLITE_DENY
    if action == _PRAGMA:
        return sqlite3.SQLITE_OK if first in _PRAGMAS else sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in (_SELECT, _FUNCTION, _TRANSACTION) else sqlite3.SQLITE_DENY


def alias(path: str, names: int) -> str | None:
    """That a file has other names, where journals may be that are not seen from here, and the remedy."""
    if names > 1:
        return f"one file with {names} names (hard links): cp it and mv the copy over it"
    if mounted_by_itself(path):
        return "a file mounted by itself: mount its folder"
    return None
