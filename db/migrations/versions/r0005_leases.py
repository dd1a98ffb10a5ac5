"""What sweeps that run tell each other: who tunes what, and which candidates were started."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    def key(*names: str) -> list[sa.Column[str]]:
        return [sa.Column(name, sa.Text, primary_key=True, nullable=False) for name in names]

    op.create_table(
        "leases",
        *key("workload", "target", "kernel_digest"),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("owner", "expires_at")),
    )
    op.create_table(
        "attempts",
        *key("workload", "target", "kernel_digest", "schedule"),
        sa.Column("count", sa.Integer, nullable=False),
    )
