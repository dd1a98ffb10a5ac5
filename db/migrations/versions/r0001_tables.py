"""Runs, workloads, targets, schedules, measurements."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _integers(*names: str, kind: type[sa.Integer] = sa.Integer) -> list[sa.Column[int]]:
    return [sa.Column(name, kind, nullable=False) for name in names]


def _digested() -> list[sa.Column[int] | sa.Column[str]]:
    return [sa.Column("id", sa.Integer, primary_key=True), sa.Column("digest", sa.Text, nullable=False, unique=True)]


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        *_text("started_at", "command"),
        *_integers("beam_width"),
        sa.Column("budget_seconds", sa.Float, nullable=False),
        *_text("versions"),
    )
    op.create_table(
        "workloads",
        *_digested(),
        *_text("op", "format"),
        *_integers("n", "k", "m", kind=sa.BigInteger),
        *_text("x_dtype", "out_dtype", "epilogue", "json"),
    )
    op.create_index("workloads_op_format", "workloads", ["op", "format"])
    op.create_table("targets", *_digested(), *_text("backend", "arch", "device"), *_integers("compute_units"))
    op.create_table("schedules", *_digested(), *_text("json"))
    op.create_table(
        "measurements",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("workload_id", sa.Integer, sa.ForeignKey("workloads.id"), nullable=False),
        sa.Column("target_id", sa.Integer, sa.ForeignKey("targets.id"), nullable=False),
        sa.Column("schedule_id", sa.Integer, sa.ForeignKey("schedules.id"), nullable=False),
        *_text("kernel_digest", "stage", "outcome", "reason"),
        *(sa.Column(name, sa.Float) for name in ("median_seconds", "p20_seconds", "p80_seconds")),
        *_text("samples"),
        *_integers("nbytes", kind=sa.BigInteger),
        *(sa.Column(name, sa.Float) for name in ("error", "tolerance")),
        *_text("clock"),
        *_integers("simulated"),
        *_text("created_at"),
        sqlite_autoincrement=True,
    )
    subject = ["workload_id", "target_id", "kernel_digest", "schedule_id"]
    op.create_index("measurements_subject", "measurements", subject)
