"""The store's tables. Migrations build them; a test holds the two equal. What may be served is in `queries`.

Measurements are facts: no code updates one, and only `db.forget` deletes any, when a user asks for it. `workloads`,
`targets` and `schedules` hold each value once, by the digest of its canonical JSON. `leases` and `attempts` are the
state of sweeps that run.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, MetaData, Table, Text

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column(
        "started_at", Text, nullable=False
    ),  # all dates: ISO 8601, UTC, microseconds, so that text order is time order
    Column("command", Text, nullable=False),
    Column("beam_width", Integer, nullable=False),
    Column("budget_seconds", Float, nullable=False),
    Column("versions", Text, nullable=False),  # JSON object: what -> version
    Column(
        "origin", Text, nullable=False, server_default="local"
    ),  # or imported: claims; or packaged: checked before they were packed
)

workloads = Table(
    "workloads",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("op", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("k", BigInteger, nullable=False),
    Column("m", BigInteger, nullable=False),
    Column("x_dtype", Text, nullable=False),
    Column("out_dtype", Text, nullable=False),
    Column("epilogue", Text, nullable=False),
    Column("json", Text, nullable=False),
    Index("workloads_op_format", "op", "format"),
)

targets = Table(
    "targets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("backend", Text, nullable=False),
    Column("arch", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("compute_units", Integer, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("json", Text, nullable=False),
)

measurements = Table(
    "measurements",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run_id", Text, ForeignKey("runs.id"), nullable=False),
    Column("workload_id", Integer, ForeignKey("workloads.id"), nullable=False),
    Column("target_id", Integer, ForeignKey("targets.id"), nullable=False),
    Column("schedule_id", Integer, ForeignKey("schedules.id"), nullable=False),
    Column("kernel_digest", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("median_seconds", Float),
    Column("p20_seconds", Float),
    Column("p80_seconds", Float),
    Column("samples", Text, nullable=False),  # JSON list of seconds a launch
    Column("nbytes", BigInteger, nullable=False),
    Column("error", Float),
    Column("tolerance", Float),
    Column("clock", Text, nullable=False),
    Column("simulated", Integer, nullable=False),
    Column("created_at", Text, nullable=False),
    # every row of a kernel, for a resumed search and for withdrawal
    Index("measurements_subject", "workload_id", "target_id", "kernel_digest", "schedule_id"),
    sqlite_autoincrement=True,  # an id is never used again, so ids order rows by when the store got them
)
# Finals are one row in hundreds: an index of these alone keeps a lookup within a few pages however long the history.
Index(
    "measurements_final",
    *(measurements.c[name] for name in ("workload_id", "target_id", "kernel_digest")),
    sqlite_where=measurements.c.stage == "final",
    postgresql_where=measurements.c.stage == "final",
)
Index(
    "measurements_baseline",
    *(measurements.c[name] for name in ("run_id", "workload_id")),
    sqlite_where=measurements.c.stage == "baseline",
    postgresql_where=measurements.c.stage == "baseline",
)
# What speaks against a schedule that is served; without it each of its rows would be read, from pages far apart.
Index(
    "measurements_fault",
    *(measurements.c[name] for name in ("workload_id", "target_id", "kernel_digest", "schedule_id")),
    sqlite_where=measurements.c.outcome.not_in(["ok", "slow"]),
    postgresql_where=measurements.c.outcome.not_in(["ok", "slow"]),
)

# Who tunes what at the moment: one row for each kernel that a sweep works on.
leases = Table(
    "leases",
    metadata,
    Column("workload", Text, primary_key=True),  # digests, as in the tables above
    Column("target", Text, primary_key=True),
    Column("kernel_digest", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
)
# Candidates that were started on a device and whose fate is not stored: each start counts one more.
attempts = Table(
    "attempts",
    metadata,
    Column("workload", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Column("kernel_digest", Text, primary_key=True),
    Column("schedule", Text, primary_key=True),
    Column("count", Integer, nullable=False),
)
# What serves the shapes of a class that no row is for (`db.rules`). A user's store has none.
rules = Table(
    "rules",
    metadata,
    *(Column(name, Text, primary_key=True) for name in ("backend", "arch", "kind")),
    Column("schedules", Text, nullable=False),  # JSON list, best first
    Column("shapes", Integer, nullable=False),
    Column("loss", Float, nullable=False),
    Column("why", Text, nullable=False),
)
