"""What serves each kernel in a row of its own. `db.engine.migrate` fills it."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    # readers of a file compare this text with `db.queries.SERVED_TABLE`
    table = "CREATE TABLE served (kernel TEXT NOT NULL PRIMARY KEY, answer TEXT NOT NULL, digest TEXT NOT NULL)"
    op.execute(table + (" WITHOUT ROWID" if op.get_bind().dialect.name == "sqlite" else ""))
