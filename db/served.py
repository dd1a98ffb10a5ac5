"""What serves each kernel, kept in a table of its own, so that a lookup reads one row instead of a history.

It says nothing that the measurements do not: who adds or deletes any calls `refresh` in the same transaction, and
`stale` compares the two. A server's table stays empty: a question takes longer to get there than to answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, delete, select, text

from db import queries, rows, schema
from db.records import Target, Workload

Row = tuple[str, ...]


def refresh(connection: Connection, kernels: Iterable[tuple[Workload, Target, str]]) -> None:
    """Brings what is kept of (workload, target, kernel digest) up to date, inside the write transaction that changed
    their measurements, as its last step."""
    for kernel in set(kernels) if _is_file(connection) else ():
        asked = queries.asked(*kernel)
        _keep(connection, asked["kernel"], _due(connection, asked))


def stale(connection: Connection) -> dict[str, Row | None]:
    """The keys of rows that are not what the measurements say, with what they say."""
    if not _is_file(connection):
        return {}
    due: dict[str, Row] = {}
    for *kernel, workload, found, digest, seconds, tolerance, error in connection.execute(text(queries.SERVABLE)):
        with suppress(ValueError):
            row = workload, found, digest, seconds, tolerance, error
            key = queries.kernel(*kernel)
            due[key] = rows.to_served(row, key, kernel[0])
    kept = {row[0]: tuple(row) for row in connection.execute(select(schema.served))}
    return {key: due.get(key) for key in due.keys() | kept.keys() if due.get(key) != kept.get(key)}


def mend(connection: Connection) -> None:
    """Makes all that is kept what the measurements say."""
    for key, row in stale(connection).items():
        _keep(connection, key, row)


def _is_file(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


def _keep(connection: Connection, key: str, row: Row | None) -> None:
    of_key = schema.served.c.kernel == key
    found = connection.execute(select(schema.served).where(of_key)).first()
    if found is not None and tuple(found) != row:
        connection.execute(delete(schema.served).where(of_key))
    if row is not None and (found is None or tuple(found) != row):
        connection.execute(schema.served.insert(), dict(zip(schema.served.columns.keys(), row, strict=True)))


def _due(connection: Connection, asked: Mapping[str, Any]) -> Row | None:
    """What the measurements say; a row that cannot be read serves nothing: one before it does."""
    for sql in (queries.EXACT, queries.EXACT_CHECKED):
        for *row, claim in connection.execute(text(sql), asked):
            with suppress(ValueError):
                if not claim:
                    return rows.to_served(row, asked["kernel"], asked["workload"])
    return None
