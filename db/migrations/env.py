"""Alembic's entry point. `db.engine` runs it on a connection whose transaction it commits; there is no alembic.ini."""

from alembic import context

from db.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
context.run_migrations()
