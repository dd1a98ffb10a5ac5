"""What serves each kernel in a row of its own. `db.engine.migrate` fills it."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "served",
        *(sa.Column(name, sa.Text, primary_key=True, nullable=False) for name in ("workload", "target", "kernel_digest")),
        sa.Column("schedule", sa.Text, nullable=False),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("seconds", "tolerance", "error")),
        sa.Column("digest", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
