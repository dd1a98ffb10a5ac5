"""Workloads are spelled as their types have it; those that two spellings had stored twice become one, with the
measurements of both."""

import json

import sqlalchemy as sa
from alembic import op

from db.codec import canonical_json, digest
from db.migrations.text_extras import respelled

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    connection = op.get_bind()
    first: dict[str, int] = {}  # digest -> the row that stays
    changed: dict[int, tuple[str, str]] = {}
    for id_, old, text in connection.execute(sa.text("SELECT id, digest, json FROM workloads ORDER BY id")).all():
        new = canonical_json(respelled(json.loads(text)))
        key = digest(new)
        if key in first:
            into = {"old": id_, "new": first[key]}
            connection.execute(sa.text("UPDATE measurements SET workload_id = :new WHERE workload_id = :old"), into)
            connection.execute(sa.text("DELETE FROM workloads WHERE id = :old"), into)
        else:
            first[key] = id_
            if key != old:
                changed[id_] = key, new
    for id_, (key, new) in changed.items():
        row = {"id": id_, "digest": key, "json": new}
        connection.execute(sa.text("UPDATE workloads SET digest = :digest, json = :json WHERE id = :id"), row)
