"""The indices that a lookup walks order the rows of a kernel by id, which is the order that counts."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    subject = ["workload_id", "target_id", "kernel_digest"]
    for name, columns, condition in (
        ("measurements_final", subject, "stage = 'final'"),
        ("measurements_fault", [*subject, "schedule_id"], "outcome NOT IN ('ok', 'slow')"),
    ):
        where = sa.text(condition)
        op.drop_index(name, "measurements")
        op.create_index(name, "measurements", columns, sqlite_where=where, postgresql_where=where)
