"""The statements that add measurements, for use inside a write transaction (`engine.writing`). There are no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, select, text

from db import codec, rows, schema
from db.records import Measurement, Run, Schedule, Target, Workload


def insert_run(connection: Connection, run: Run, started_at: str, origin: str) -> None:
    connection.execute(
        schema.runs.insert(),
        {
            "id": run.id,
            "started_at": started_at,
            "command": run.command,
            "beam_width": run.beam_width,
            "budget_seconds": run.budget_seconds,
            "versions": codec.canonical_json(dict(run.versions)),
            "origin": origin,
        },
    )


def insert_measurements(connection: Connection, facts: Sequence[tuple[str, str, Measurement]]) -> None:
    """Adds (run id, created_at, measurement) rows, and the workloads, targets and schedules that are new."""
    ids = _Ids(connection)
    columns = [
        rows.to_columns(m)
        | {
            "run_id": run_id,
            "workload_id": ids.of(schema.workloads, _workload(m.workload)),
            "target_id": ids.of(schema.targets, _target(m.target)),
            "schedule_id": ids.of(schema.schedules, _schedule(m.schedule)),
            "created_at": created_at,
        }
        for run_id, created_at, m in facts
    ]
    if columns:
        connection.execute(schema.measurements.insert(), columns)


class _Ids:
    """Row ids by digest, for one transaction; a value that the store lacks is added."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[str, str], int] = {}

    def of(self, table: Table, columns: dict[str, Any]) -> int:
        key = (table.name, columns["digest"])
        if key not in self._known:
            find = select(table.c.id).where(table.c.digest == columns["digest"])
            found = self._connection.execute(find).scalar()
            if found is None:
                # On a server another transaction may add the same value at the same moment: then its row is ours too.
                names, values = ", ".join(columns), ", ".join(f":{name}" for name in columns)
                insert = f"INSERT INTO {table.name} ({names}) VALUES ({values}) ON CONFLICT (digest) DO NOTHING"
                self._connection.execute(text(insert), columns)
                found = self._connection.execute(find).scalar_one()
            self._known[key] = found
        return self._known[key]


def _workload(w: Workload) -> dict[str, Any]:
    shape = {key: value for key, value in codec.workload_to_json(w).items() if key != "extra"}
    return shape | {"digest": codec.workload_digest(w), "json": codec.canonical_json(codec.workload_to_json(w))}


def _target(t: Target) -> dict[str, Any]:
    return codec.target_to_json(t) | {"digest": codec.target_digest(t)}


def _schedule(s: Schedule) -> dict[str, Any]:
    return {"digest": codec.schedule_digest(s), "json": codec.canonical_json(codec.schedule_to_json(s))}
