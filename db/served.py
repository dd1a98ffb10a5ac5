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

_KEY = ("workload", "target", "kernel_digest")
_ALONE = "SELECT pg_advisory_xact_lock(7032)"
# On a server two transactions may add rows of a kernel at once: the second, which waits here, sees those of the first.


def refresh(connection: Connection, kernels: Iterable[Kernel]) -> None:
    """Brings what is kept of these kernels up to date, inside the write transaction that changed their measurements, as
    its last step."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(_ALONE))
    for kernel in sorted(set(kernels)):
        key = dict(zip(_KEY, kernel, strict=True))
        due = _due(connection.execute(text(queries.SERVABLE_OF), key)).get(kernel)
        table = schema.served
        of_kernel = [table.c[name] == value for name, value in key.items()]
        found = connection.execute(select(table).where(*of_kernel)).first()
        if found is not None and tuple(found) != due:
            connection.execute(delete(table).where(*of_kernel))
        if due is not None and (found is None or tuple(found) != due):
            connection.execute(table.insert(), dict(zip(table.columns.keys(), due, strict=True)))


def stale(connection: Connection) -> list[Kernel]:
    """The kernels of which something else is kept than their measurements say."""
    due = _due(connection.execute(text(queries.SERVABLE)))
    kept = {_kernel(row): tuple(row) for row in connection.execute(select(schema.served))}
    return [kernel for kernel in due.keys() | kept.keys() if due.get(kernel) != kept.get(kernel)]


def _due(servable: Iterable[Sequence[Any]]) -> dict[Kernel, tuple[Any, ...]]:
    """The rows of the table that the answer to SERVABLE asks for. A row that cannot be read serves nothing: one before
    it does."""
    due = {}
    for row in servable:
        with suppress(ValueError):
            due[_kernel(row)] = rows.to_served(row)
    return due


def _kernel(row: Sequence[Any]) -> Kernel:
    workload, target, kernel_digest = row[:3]
    return workload, target, kernel_digest
