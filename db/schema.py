"""The store's tables. Migrations build them; a test holds the two equal. What may be served is in `queries`.

Measurements are facts: no code updates one, and only `db.forget` deletes any, when a user asks for it. `workloads`,
`targets` and `schedules` hold each value once, by the digest of its canonical JSON. `leases` and `attempts` are the
state of sweeps that run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, MetaData, Table, Text
from sqlalchemy.sql.elements import ColumnElement

metadata = MetaData()


def _required(kind: Any, *names: str) -> Iterator[Column[Any]]:
    return (Column(name, kind, nullable=False) for name in names)


def _by_digest() -> tuple[Column[Any], Column[Any]]:
    return Column("id", Integer, primary_key=True), Column("digest", Text, nullable=False, unique=True)


# All dates are ISO 8601, UTC, with microseconds, so that the order of texts is that of times.
runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    *_required(Text, "started_at", "command"),
    *_required(Integer, "beam_width"),
    *_required(Float, "budget_seconds"),
    *_required(Text, "versions"),  # JSON object: what -> version
    # "local"; or "imported": claims; or "packaged": checked before they were packed
    Column("origin", Text, nullable=False, server_default="local"),
)

workloads = Table(
    "workloads",
    metadata,
    *_by_digest(),
    *_required(Text, "op", "format"),
    *_required(BigInteger, "n", "k", "m"),
    *_required(Text, "x_dtype", "out_dtype", "epilogue", "json"),
    Index("workloads_op_format", "op", "format"),
)

targets = Table(
    "targets",
    metadata,
    *_by_digest(),
    *_required(Text, "backend", "arch", "device"),
    *_required(Integer, "compute_units"),
)

schedules = Table("schedules", metadata, *_by_digest(), *_required(Text, "json"))

measurements = Table(
    "measurements",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run_id", Text, ForeignKey("runs.id"), nullable=False),
    Column("workload_id", Integer, ForeignKey("workloads.id"), nullable=False),
    Column("target_id", Integer, ForeignKey("targets.id"), nullable=False),
    Column("schedule_id", Integer, ForeignKey("schedules.id"), nullable=False),
    *_required(Text, "kernel_digest", "stage", "outcome", "reason"),
    *(Column(name, Float) for name in ("median_seconds", "p20_seconds", "p80_seconds")),
    *_required(Text, "samples"),  # JSON list of seconds a launch
    *_required(BigInteger, "nbytes"),
    *(Column(name, Float) for name in ("error", "tolerance")),
    *_required(Text, "clock"),
    *_required(Integer, "simulated"),
    *_required(Text, "created_at"),
    # every row of a kernel, for a resumed search and for withdrawal
    Index("measurements_subject", "workload_id", "target_id", "kernel_digest", "schedule_id"),
    sqlite_autoincrement=True,  # an id is never used again, so ids order rows by when the store got them
)


def _index_of(name: str, rows: ColumnElement[bool], *columns: str) -> None:
    """An index of those measurements alone that `rows` selects."""
    Index(name, *(measurements.c[c] for c in columns), sqlite_where=rows, postgresql_where=rows)


_KERNEL = ("workload_id", "target_id", "kernel_digest")
# Finals are one row in hundreds: an index of these alone keeps a lookup within a few pages however long the history.
_index_of("measurements_final", measurements.c.stage == "final", *_KERNEL)
_index_of("measurements_baseline", measurements.c.stage == "baseline", "run_id", "workload_id")
# What speaks against a schedule that is served; without it each of its rows would be read, from pages far apart.
_index_of("measurements_fault", measurements.c.outcome.not_in(["ok", "slow"]), *_KERNEL, "schedule_id")


def _key(*names: str) -> Iterator[Column[Any]]:
    return (Column(name, Text, primary_key=True) for name in names)


# Who tunes what at the moment: one row for each kernel that a sweep works on. Digests, as in the tables above.
leases = Table(
    "leases",
    metadata,
    *_key("workload", "target", "kernel_digest"),
    *_required(Text, "owner", "expires_at"),
)
# Candidates that were started on a device and whose fate is not stored: each start counts one more.
attempts = Table(
    "attempts",
    metadata,
    *_key("workload", "target", "kernel_digest", "schedule"),
    *_required(Integer, "count"),
)
# What serves each kernel, as it follows from the measurements (`db.served`): one row, for readers of files.
served = Table(
    "served",
    metadata,
    *_key("kernel"),  # digest of the three digests that it is asked for by
    *_required(Text, "answer", "digest"),  # JSON, and the digest of the two columns before
    sqlite_with_rowid=False,
)
# What serves the shapes of a class that no row is for (`db.rules`). A user's store has none.
rules = Table(
    "rules",
    metadata,
    *_key("backend", "arch", "kind"),
    *_required(Text, "schedules"),  # JSON list, best first
    *_required(Integer, "shapes"),
    *_required(Float, "loss"),
    *_required(Text, "why"),
)
