"""What may become of a store's file: aged, of another schema, damaged, left by a writer that was killed."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from sqlalchemy import create_engine

from db.engine import upgrade
from db.inserts import insert_rows
from db.records import Measurement, Outcome, Stage
from db.store import Store
from support.store_rows import RUN, fact


def age(path: Path) -> None:
    """Makes a store look long unchanged: it is then read without its journal."""
    os.utime(path, (1e9, 1e9))


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(sql)


def newer(path: Path) -> None:
    change(path, "UPDATE alembic_version SET version_num = '0099'; ALTER TABLE served RENAME COLUMN answer TO result")


def older(path: Path) -> None:
    change(path, "UPDATE alembic_version SET version_num = '0001'; DROP TABLE served")


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database " * 500)


def wrong(one: Measurement) -> Measurement:
    """What withdraws a final: its schedule was found to compute something else."""
    return replace(one, stage=Stage.VERIFY, outcome=Outcome.WRONG_RESULT, samples=(), error=0.5, reason="found wrong")


def withdraw(path: Path, one: Measurement | None = None) -> None:
    Store.open(path).record(RUN.id, [wrong(one or fact())])


def killed_while_withdrawing(path: Path, shm: bool) -> None:
    """Leaves the files of a writer that withdrew the final and was killed: the news is in the journal alone."""
    live = path.with_name("live.sqlite")
    shutil.copy(path, live)
    with closing(sqlite3.connect(live)) as db:
        db.execute("SELECT count(*) FROM runs").fetchone()  # as long as it is open, no other writes the journal back
        withdraw(live)
        for suffix in ("", "-wal", "-shm") if shm else ("", "-wal"):
            shutil.copy(f"{live}{suffix}", f"{path}{suffix}")
    for file in path.parent.glob("live.sqlite*"):
        file.unlink()
    age(path)


def old_store(path: Path, revision: str = "0001") -> None:
    """A store of an older revision with a run and a final."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection, revision)
        connection.exec_driver_sql(
            "INSERT INTO runs (id, started_at, command, beam_width, budget_seconds, versions) VALUES ("
            "'run1', '2025-01-01T00:00:00.000000+00:00', 'x', 4, 60, '{}')"
        )
        insert_rows(connection, [("run1", "2025-01-01T00:00:00.000001+00:00", fact())])
    engine.dispose()
