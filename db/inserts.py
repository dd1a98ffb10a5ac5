"""The statements that add measurements, for use inside a write transaction (`engine.writing`). There are no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, select, text

from db import codec, rows, schema
from db.records import Measurement, Run, Schedule, Target, Workload

K = TypeVar("K")


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
    measured = [m for _, _, m in facts]
    workloads = _ids(connection, schema.workloads, {m.workload: _workload(m.workload) for m in measured})
    targets = _ids(connection, schema.targets, {m.target: _target(m.target) for m in measured})
    schedules = _ids(connection, schema.schedules, {m.schedule: _schedule(m.schedule) for m in measured})
    columns = [
        rows.to_columns(m)
        | {
            "run_id": run_id,
            "workload_id": workloads[m.workload],
            "target_id": targets[m.target],
            "schedule_id": schedules[m.schedule],
            "created_at": created_at,
        }
        for run_id, created_at, m in facts
    ]
    if columns:
        connection.execute(schema.measurements.insert(), columns)


def _ids(connection: Connection, table: Table, values: Mapping[K, dict[str, Any]]) -> dict[K, int]:
    """Value -> row id; a value that the store lacks is added.

    All writers add in the order of digests, so that on a server none of two waits for what the other has added."""
    ids = {}
    for value, columns in sorted(values.items(), key=lambda item: str(item[1]["digest"])):
        find = select(table.c.id).where(table.c.digest == columns["digest"])
        found = connection.execute(find).scalar()
        if found is None:
            # On a server another transaction may add the same value at the same moment: then its row is ours too.
            names, places = ", ".join(columns), ", ".join(f":{name}" for name in columns)
            insert = f"INSERT INTO {table.name} ({names}) VALUES ({places}) ON CONFLICT (digest) DO NOTHING"
            connection.execute(text(insert), columns)
            found = connection.execute(find).scalar_one()
        ids[value] = found
    return ids


def _workload(w: Workload) -> dict[str, Any]:
    shape = {key: value for key, value in codec.workload_to_json(w).items() if key != "extra"}
    return shape | {"digest": codec.workload_digest(w), "json": codec.canonical_json(codec.workload_to_json(w))}


def _target(t: Target) -> dict[str, Any]:
    return codec.target_to_json(t) | {"digest": codec.target_digest(t)}


def _schedule(s: Schedule) -> dict[str, Any]:
    return {"digest": codec.schedule_digest(s), "json": codec.canonical_json(codec.schedule_to_json(s))}
