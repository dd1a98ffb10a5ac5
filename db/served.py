"""What serves each kernel, kept in a table of its own, so that a lookup reads one row instead of a history.

It says nothing that the measurements do not: who adds or deletes any calls `refresh` in the same transaction, and
`stale` compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, delete, select, text

from db import queries, rows, schema

Kernel = tuple[str, str, str]
"""The digests of a workload, of a target and of a kernel's source."""

Row = tuple[str, ...]

_ALONE = "SELECT pg_advisory_xact_lock(7032)"
# On a server two transactions may add rows of a kernel at once: the second, which waits here, sees those of the first.


def refresh(connection: Connection, kernels: Iterable[Kernel]) -> None:
    """Brings what is kept of these kernels up to date, inside the write transaction that changed their measurements, as
    its last step."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(_ALONE))
    for workload, target, kernel_digest in sorted(set(kernels)):
        asked = {"workload": workload, "target": target, "kernel_digest": kernel_digest}
        key = queries.kernel(workload, target, kernel_digest)
        _keep(connection, key, _due(connection.execute(text(queries.SERVABLE_OF), asked)).get(key))


def stale(connection: Connection) -> dict[str, Row | None]:
    """The keys of rows that are not what the measurements say, with what they say."""
    due = _due(connection.execute(text(queries.SERVABLE)))
    kept = {row[0]: tuple(row) for row in connection.execute(select(schema.served))}
    return {key: due.get(key) for key in due.keys() | kept.keys() if due.get(key) != kept.get(key)}


def mend(connection: Connection) -> None:
    """Makes all that is kept what the measurements say."""
    for key, row in stale(connection).items():
        _keep(connection, key, row)


def _keep(connection: Connection, key: str, row: Row | None) -> None:
    of_key = schema.served.c.kernel == key
    found = connection.execute(select(schema.served).where(of_key)).first()
    if found is not None and tuple(found) != row:
        connection.execute(delete(schema.served).where(of_key))
    if row is not None and (found is None or tuple(found) != row):
        connection.execute(schema.served.insert(), dict(zip(schema.served.columns.keys(), row, strict=True)))


def _due(servable: Iterable[Sequence[Any]]) -> dict[str, Row]:
    """Key -> row of the table, out of the rows of the queries SERVABLE. A row that cannot be read serves nothing: one
    before it does."""
    due: dict[str, Row] = {}
    for row in servable:
        with suppress(ValueError):
            kept = rows.to_served(row)
            due[kept[0]] = kept
    return due
