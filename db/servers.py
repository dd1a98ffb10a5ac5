"""A store on a PostgreSQL server: reached, migrated, read. Every wait for the server has an end."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from db import schema
from db.engine import check_revision, migrate, reported
from db.errors import StoreError
from db.queries import READABLE, REVISION, REVISIONS

CONNECT_SECONDS = 3
ANSWER_SECONDS = 60.0  # for one statement of a sweep; ours take milliseconds, or wait for another's transaction
_MIGRATION_LOCK = "SELECT pg_advisory_xact_lock(7031)"  # any number, as long as no other program uses it
_EXAMPLE = "a URL as in postgresql://host/name"


def server_engine(url: str, statement_seconds: int | None = None) -> Engine:
    """An engine on the server of an SQLAlchemy URL. A server that does not answer within the limits is an error.
    statement_seconds: how long the server may work on a statement.

    Raises StoreError, without the URL, which may hold a password."""
    try:
        parsed = _checked(url)
        waits: dict[str, Any] = {} if "connect_timeout" in parsed.query else {"connect_timeout": CONNECT_SECONDS}
        if statement_seconds is not None:
            asked = parsed.query.get("options", "")
            options = [asked] if isinstance(asked, str) else asked
            waits["options"] = " ".join([*options, f"-c statement_timeout={statement_seconds}s"]).strip()
        # no pool: questions are few, and nothing is left to be carried across a fork
        engine = create_engine(parsed, poolclass=NullPool, connect_args=waits, use_native_hstore=False)
    except ModuleNotFoundError as e:
        raise StoreError(f"store URL cannot be used: {e}; pip install 'tinygrad-autotune[postgres]'") from e
    except StoreError:
        raise
    except (SQLAlchemyError, ImportError, ValueError, TypeError) as e:  # whose message may quote the URL
        raise StoreError(f"store URL cannot be used ({type(e).__name__}); give a path, or {_EXAMPLE}") from e
    _bound_waits(engine, ANSWER_SECONDS if statement_seconds is None else statement_seconds + 1)
    return engine


def open_server(url: str) -> Engine:
    """An engine on a store that may be written to, created or migrated to this version's schema. Raises StoreError."""
    engine = server_engine(url)
    shown = engine.url.render_as_string()
    with reported(shown), engine.begin() as connection:
        connection.execute(text(_MIGRATION_LOCK))  # one migrating process at a time
        migrate(connection, shown)
        _check_writable(connection, shown)
    return engine


def read_server(url: str) -> Engine:
    """An engine on a store that is only read, for which SELECT rights are enough. Raises StoreError."""
    engine = server_engine(url)
    shown = engine.url.render_as_string()
    with reported(shown), engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        found = connection.execute(text(REVISION)).scalar() if "alembic_version" in tables else None
    if found is None:
        raise StoreError(f"store {shown}: no store of ours (tables {tables!r:.100}); a sweep makes one")
    check_revision(shown, found, {})
    if found not in READABLE:
        raise StoreError(f"store {shown}: schema {found!r}, not {REVISIONS[-1]!r}; a sweep migrates it")
    return engine


def _checked(url: str) -> URL:
    """The URL, with psycopg as the driver where it names none."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise StoreError(f"store URL of {parsed.get_backend_name()!r:.40}; give a path, or {_EXAMPLE}")
    if "@" in (parsed.host or ""):
        raise StoreError("store URL cannot be used: write %40 for a @ in the password")
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise StoreError(f"store URL with the driver {parsed.drivername!r:.40}; only psycopg is supported: {_EXAMPLE}")
    return parsed.set(drivername="postgresql+psycopg")


def _bound_waits(engine: Engine, seconds: float) -> None:
    """Makes statements fail after some seconds; psycopg would wait for a server that is gone for hours, or for ever.
    A limit that the server keeps, statement_timeout, does not help there."""
    import psycopg

    class Bounded(psycopg.Connection[Any]):
        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            try:
                return super().wait(gen, interval, seconds if timeout is None else timeout)
            except psycopg.errors._WaitTimeout as e:
                self.pgconn.finish()  # else the rollback would wait for the same answer
                raise psycopg.OperationalError(f"the server has not answered within {seconds:g} s") from e

    @event.listens_for(engine, "do_connect")
    def _(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> psycopg.Connection[Any]:
        return Bounded.connect(*arguments, **options)


def _check_writable(connection: Connection, where: str) -> None:
    """Raises StoreError for a role that may only read, and for a server that is a copy of another."""
    try:
        for table in schema.metadata.sorted_tables:
            connection.execute(table.insert().from_select(table.columns.keys(), table.select().where(text("1 = 0"))))
    except DBAPIError as e:
        said = " ".join(str(e.orig).split())
        raise StoreError(f"store {where}: it can be read only ({said}); choose another with --db or AUTOTUNE_DB") from e
