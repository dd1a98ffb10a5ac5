"""Opens a store: inspects before it touches, creates, migrates; or only reads. What is in it is `store`'s business."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool, StaticPool

from db import schema, served
from db.errors import StoreError
from db.paths import sqlite_path
from db.queries import READABLE, REVISION, REVISIONS
from db.sqlite_files import (
    FAILURES,
    alias,
    computed_column,
    connect,
    copy_database,
    file_state,
    has_journal,
    is_locked,
    open_read_only,
    reason,
    tolerant_text,
)

MIGRATIONS = Path(__file__).with_name("migrations")
LOCK_SECONDS = 60.0  # how long one process waits for another's transaction; ours last milliseconds
OPEN_SECONDS = 5.0  # the same, before there is anything that would be lost
READ_SECONDS = 1.0  # readers wait only while the last writer closes the file
_READ_STEPS = 1_000_000_000  # of SQLite's virtual machine for a command, some ten seconds
_PAGE_NBYTES = 512  # at least; SQLite takes a smaller file for an empty one
_NEEDS_RECOVERY = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}  # a killed writer's journal, which writers mend

T = TypeVar("T")


def open_engine(where: str | Path) -> Engine:
    """An engine on the store at a path or an SQLAlchemy URL, created or migrated to this version's schema.

    Safe against another process that opens the same store at once. Raises StoreError, having written nothing, for a
    file that is no store, a corrupt one, or one written by a newer version.
    """
    path = sqlite_path(where)
    if path is None:
        from db.servers import open_server  # psycopg takes a while to import

        return open_server(str(where))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        here = file_state(str(path)) if path.exists() else None
        fresh = here is None or here.nbytes == 0
        if here is not None and (other := alias(os.path.realpath(path), here.names)):
            raise StoreError(f"store {path}: {other}. SQLite would lose what is written through different names")
        found = None if fresh else _inspect(path)
    except (OSError, UnicodeError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        raise StoreError(f"store {path}: {why}; choose another place with --db or AUTOTUNE_DB") from e
    with reported(path):
        engine = _sqlite_engine(path, OPEN_SECONDS)
        _retry(lambda: _use_wal(engine), OPEN_SECONDS)
        with writing(engine, seconds=OPEN_SECONDS) as connection:  # without work to do, too: it may be read-only
            if found != REVISIONS[-1]:
                migrate(connection, str(path))
        return _sqlite_engine(path, LOCK_SECONDS)


def open_engine_read_only(where: str | Path) -> Engine:
    """An engine that reads the store at a path or an SQLAlchemy URL, and waits for nobody. One of an older schema is
    copied, and the copy brought up to date.

    Raises StoreError for what is not there, no store, corrupt, locked, or written by a newer version.
    """
    path = sqlite_path(where)
    if path is None:
        from db.servers import read_server

        return read_server(str(where))
    with reported(path):
        name = os.path.abspath(path)
    with reported(path), closing(_reading(name)) as connection:
        revision, objects = _revision(connection)
        check_revision(path, revision, objects)
        if revision is None:
            raise StoreError(f"store {path}: an empty file")
        if revision not in READABLE:
            return _migrated_copy(connection)
    engine = create_engine("sqlite://", creator=lambda: _reading(name), poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")  # one state of the store for all that is read

    return engine


def empty_engine() -> Engine:
    """An engine on a store without rows, in memory."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    schema.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
        connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{REVISIONS[-1]}')")
    return engine


def _reading(name: str) -> sqlite3.Connection:
    return open_read_only(name, prefer_still=False, seconds=READ_SECONDS, steps=_READ_STEPS).connection


def _migrated_copy(source: sqlite3.Connection) -> Engine:
    """An engine on a copy, which is deleted with it."""
    folder = tempfile.mkdtemp(prefix="tinygrad-autotune-")
    try:
        copy = Path(folder, "copy.sqlite")
        with closing(sqlite3.connect(copy)) as sink:
            copy_database(source, sink)
        engine = open_engine(copy)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(engine, shutil.rmtree, folder, ignore_errors=True)
    return engine


@contextmanager
def writing(engine: Engine, *, durable: bool = False, seconds: float = LOCK_SECONDS) -> Iterator[Connection]:
    """One write transaction: all of it is stored, or nothing. Waits for other writers, `seconds` at most.

    durable: once it is done, a crash of the machine does not undo it either; on a server it never does."""
    with engine.connect().execution_options(writes=True, durable=durable) as connection:
        _retry(connection.begin, seconds)
        with connection.get_transaction():  # type: ignore[union-attr]
            yield connection


@contextmanager
def reported(where: object) -> Iterator[None]:
    """Turns the database's own errors into StoreError, those of a connection without SQLAlchemy too."""
    try:
        yield
    except DBAPIError as e:
        raise StoreError(f"store {where}: {reason(e.orig) if isinstance(e.orig, Exception) else e}") from e
    except (*FAILURES, SQLAlchemyError, OSError) as e:
        raise StoreError(f"store {where}: {reason(e)}") from e


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
        for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 2048", "VACUUM"):
            connection.cursor().execute(statement).close()


def migrate(connection: Connection, where: str) -> None:
    """Brings a database up to this version's schema; `where` is its name in messages. Raises StoreError."""
    # Asked again under the write lock: another process may have migrated in the meantime.
    objects = dict.fromkeys(inspect(connection).get_table_names(), "table")
    found = connection.execute(text(REVISION)).scalar() if "alembic_version" in objects else None
    check_revision(where, found, objects)
    if found != REVISIONS[-1]:
        upgrade(connection)
        served.mend(connection)


def check_revision(where: object, found: str | None, objects: Mapping[str, str]) -> None:
    """Raises StoreError unless the database is a store of a schema that this version knows. objects: name -> type."""
    if found is None and objects.keys() - {"alembic_version"}:
        raise StoreError(
            f"store {where}: a database of something else (tables {sorted(objects)!r:.100}); left untouched: "
            "choose another store with --db or AUTOTUNE_DB"
        )
    if found is not None and found not in REVISIONS:
        raise StoreError(
            f"store {where}: schema {found!r:.80} is newer than this version's {REVISIONS[-1]!r}; "
            "upgrade tinygrad-autotune, or choose another store with --db or AUTOTUNE_DB"
        )
    if foreign := sorted(f"{kind} {name}" for name, kind in objects.items() if kind != "table"):
        raise StoreError(f"store {where}: no version of ours made its {', '.join(foreign):.200}; left untouched")


def _inspect(path: Path) -> str | None:
    """The schema revision of an existing file, read without write access; None for a database without tables."""
    if file_state(str(path)).nbytes < _PAGE_NBYTES:
        raise StoreError(f"store {path}: not an SQLite database; left untouched")
    has_journal(os.path.realpath(path))  # raises for one that is no file, which SQLite could wait for without end
    try:
        try:
            found, objects = _read_revision(path, "ro")
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode & 0xFF not in _NEEDS_RECOVERY:
                raise
            found, objects = _read_revision(path, "rw")
    except FAILURES as e:
        remedy = "" if is_locked(e) else "; left untouched. Move the file away to start a new store"
        raise StoreError(f"store {path}: {reason(e)}{remedy}") from e
    check_revision(path, found, objects)
    return found


def _read_revision(path: Path, mode: str) -> tuple[str | None, dict[str, str]]:
    with closing(connect(os.path.realpath(path), f"mode={mode}", OPEN_SECONDS, lambda: False)) as connection:
        return _revision(connection)


def _revision(connection: sqlite3.Connection) -> tuple[str | None, dict[str, str]]:
    """The schema's revision, and the type of each of its tables, views and triggers, and of a computed column."""
    kinds = "SELECT name, type FROM sqlite_master WHERE type <> 'index' AND name <> 'sqlite_sequence'"
    objects = {str(name): str(kind) for name, kind in connection.execute(kinds)}
    objects |= {odd: "computed column"} if (odd := computed_column(connection)) else {}
    row = connection.execute(REVISION).fetchone() if objects.get("alembic_version") == "table" else None
    return (str(row[0]) if row else None), objects


def _sqlite_engine(path: Path, seconds: float) -> Engine:
    # No pool: a connection costs a fraction of a millisecond, and none is left to be carried across a fork or thread.
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": seconds})
    logging.getLogger(f"{NullPool.__module__}.{NullPool.__name__}").addFilter(_no_ctrl_c)

    @event.listens_for(engine, "connect")
    def _(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        connection.text_factory = tolerant_text
        connection.execute("PRAGMA foreign_keys = ON")
        # in WAL mode a power cut may cost the last rows, not the file
        connection.execute("PRAGMA synchronous = NORMAL")

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
    """False for the traceback that SQLAlchemy logs where Ctrl-C or SIGTERM comes while it closes a connection. It then
    raises the KeyboardInterrupt or SystemExit, which ends the command."""
    return record.exc_info is None or not isinstance(record.exc_info[1], KeyboardInterrupt | SystemExit)


def _use_wal(engine: Engine) -> None:
    with closing(engine.raw_connection()) as connection:
        connection.cursor().execute("PRAGMA journal_mode = WAL")


def _retry(action: Callable[[], T], seconds: float) -> T:
    """SQLite's busy timeout covers waiting for a lock, but not every state (recovery, a change of journal mode)."""
    start, pause = time.monotonic(), 0.05
    while True:
        try:
            return action()
        except (DBAPIError, sqlite3.OperationalError) as e:
            error = e.orig if isinstance(e, DBAPIError) else e
            if not isinstance(error, Exception) or not is_locked(error) or time.monotonic() - start >= seconds:
                raise
            time.sleep(pause)
            pause *= 2
