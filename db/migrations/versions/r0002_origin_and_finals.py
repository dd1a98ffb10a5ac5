"""Where a run came from, and indices of the few rows that lookups and tables read."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("origin", sa.Text, nullable=False, server_default="local"))
    for name, stage, columns in (
        ("measurements_final", "final", ["workload_id", "target_id", "kernel_digest", "created_at"]),
        ("measurements_baseline", "baseline", ["run_id", "workload_id"]),
    ):
        where = sa.text(f"stage = '{stage}'")
        op.create_index(name, "measurements", columns, sqlite_where=where, postgresql_where=where)
