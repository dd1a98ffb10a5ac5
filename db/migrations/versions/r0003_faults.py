"""An index of failures: a lookup asks whether what it found was withdrawn."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    columns = ["workload_id", "target_id", "kernel_digest", "schedule_id", "created_at"]
    where = sa.text("outcome NOT IN ('ok', 'slow')")
    op.create_index("measurements_fault", "measurements", columns, sqlite_where=where, postgresql_where=where)
