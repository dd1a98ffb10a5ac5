"""Opens a store for writing: inspects before it touches, creates, migrates. What is written is `store`'s business."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from db.errors import StoreError
from db.paths import sqlite_path
from db.queries import REVISION, REVISIONS

MIGRATIONS = Path(__file__).with_name("migrations")
LOCK_SECONDS = 60.0  # how long one process waits for another's transaction; ours last milliseconds
_ATTEMPTS = 5
_MAGIC = b"SQLite format 3\0"
_NEEDS_RECOVERY = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
}  # a killed writer's journal: only a writer may mend
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

T = TypeVar("T")


def open_engine(where: str | Path) -> Engine:
    """An engine on the store at a path or an SQLAlchemy URL, created or migrated to this version's schema.

    Safe against another process that opens the same store at once. Raises StoreError, having written nothing, for a
    file that is no store, a corrupt one, or one written by a newer version.
    """
    path = sqlite_path(where)
    if path is None:
        return _open_server(str(where))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not path.exists() or path.stat().st_size == 0
        found = None if fresh else _inspect(path)
    except OSError as e:
        raise StoreError(f"store {path}: {e.strerror}; choose another place with --db or AUTOTUNE_DB") from e
    engine = _sqlite_engine(path)
    with reported(path):
        _retry(lambda: _use_wal(engine))
        with writing(engine) as connection:  # even without work to do: it says now that the file is read-only
            if found != REVISIONS[-1]:
                _upgrade(connection, str(path))
    return engine


@contextmanager
def writing(engine: Engine, *, durable: bool = False) -> Iterator[Connection]:
    """One write transaction: all of it is stored, or nothing. Waits for other writers, LOCK_SECONDS at most.

    durable: once it is done, a crash of the machine does not undo it either; on a server it never does."""
    with engine.connect().execution_options(writes=True, durable=durable) as connection:
        _retry(connection.begin)
        with connection.get_transaction():  # type: ignore[union-attr]
            yield connection


@contextmanager
def reported(where: object) -> Iterator[None]:
    """Turns the database's own errors into StoreError, those of a connection without SQLAlchemy too."""
    try:
        yield
    except DBAPIError as e:
        raise StoreError(f"store {where}: {e.orig}") from e
    except sqlite3.Error as e:
        raise StoreError(f"store {where}: {e}") from e


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Runs the migrations up to `revision` inside the connection's transaction."""
    from alembic import command  # a tenth of a second, and hardly ever needed
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, revision)


def seal(engine: Engine) -> None:
    """Makes an SQLite store one compact file that needs no journal beside it, for a reader without write access."""
    with closing(engine.raw_connection()) as connection:
        for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 1024", "VACUUM"):
            connection.cursor().execute(statement).close()


def _upgrade(connection: Connection, where: str) -> None:
    # Asked again under the write lock: another process may have migrated in the meantime.
    tables = set(inspect(connection).get_table_names())
    found = connection.execute(text(REVISION)).scalar() if "alembic_version" in tables else None
    _check_revision(where, found, tables)
    if found != REVISIONS[-1]:
        upgrade(connection)


def _check_revision(where: object, found: str | None, tables: set[str]) -> None:
    if found is None and tables - {"alembic_version"}:
        raise StoreError(
            f"store {where}: a database of something else (tables {sorted(tables)!r:.100}); left untouched"
        )
    if found is not None and found not in REVISIONS:
        raise StoreError(
            f"store {where}: schema {found!r} is newer than this version's {REVISIONS[-1]!r}; "
            "upgrade tinygrad-autotune, or choose another store with --db or AUTOTUNE_DB"
        )


def _inspect(path: Path) -> str | None:
    """The schema revision of an existing file, read without write access; None for a database without tables."""
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        raise StoreError(f"store {path}: not an SQLite database (begins with {magic!r}); left untouched")
    try:
        try:
            found, tables = _read_revision(path, "ro")
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode & 0xFF not in _NEEDS_RECOVERY:
                raise
            found, tables = _read_revision(path, "rw")
    except sqlite3.DatabaseError as e:
        raise StoreError(f"store {path}: {e}; left untouched. Move the file away to start a new store") from e
    _check_revision(path, found, tables)
    return found


def _read_revision(path: Path, mode: str) -> tuple[str | None, set[str]]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=LOCK_SECONDS)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        row = db.execute(REVISION).fetchone() if "alembic_version" in tables else None
    return (row[0] if row else None), tables - {"sqlite_sequence"}


def _sqlite_engine(path: Path) -> Engine:
    # No pool: a connection costs a fraction of a millisecond, and none is left to be carried across a fork or thread.
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": LOCK_SECONDS})
    logging.getLogger(f"{NullPool.__module__}.{NullPool.__name__}").addFilter(_no_ctrl_c)

    @event.listens_for(engine, "connect")
    def _(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(
            "PRAGMA synchronous = NORMAL"
        )  # in WAL mode a power cut may cost the last rows, not the file

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        # A transaction that reads first and then asks to write can be refused at once; IMMEDIATE waits in line.
        options = connection.get_execution_options()
        writes = options.get("writes", False)
        if options.get("durable", False):
            connection.exec_driver_sql("PRAGMA synchronous = FULL")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _no_ctrl_c(record: logging.LogRecord) -> bool:
    """False for the traceback that SQLAlchemy logs where Ctrl-C comes while it closes a connection. It goes on to raise
    the KeyboardInterrupt, which the command tells of in one line."""
    return record.exc_info is None or not isinstance(record.exc_info[1], KeyboardInterrupt)


def _use_wal(engine: Engine) -> None:
    with closing(engine.raw_connection()) as connection:
        connection.cursor().execute("PRAGMA journal_mode = WAL")


def _open_server(url: str) -> Engine:
    try:
        engine = create_engine(url)
    except (ArgumentError, NoSuchModuleError, ImportError) as e:
        raise StoreError(
            f"store URL cannot be used: {e}; give a path, or a URL as in postgresql+psycopg://host/name"
        ) from e  # not the URL itself: it may hold a password
    shown = engine.url.render_as_string()
    with reported(shown), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(7031)"))  # one migrating process at a time
        _upgrade(connection, shown)
    return engine


def _retry(action: Callable[[], T]) -> T:
    """SQLite's busy timeout covers waiting for a lock, but not every state (recovery, a change of journal mode)."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return action()
        except (DBAPIError, sqlite3.OperationalError) as e:
            code = getattr(e.orig if isinstance(e, DBAPIError) else e, "sqlite_errorcode", None)
            if code is None or code & 0xFF not in _BUSY or attempt == _ATTEMPTS:
                raise
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable")
