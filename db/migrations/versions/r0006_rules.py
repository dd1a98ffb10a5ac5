"""Rules for shapes that no row is for, which the packaged store has."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "rules",
        *(sa.Column(name, sa.Text, primary_key=True, nullable=False) for name in ("backend", "arch", "kind")),
        sa.Column("schedules", sa.Text, nullable=False),
        sa.Column("shapes", sa.Integer, nullable=False),
        sa.Column("loss", sa.Float, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
    )
