"""The statements that add measurements, for use inside a write transaction (`engine.writing`). There are no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, select, text

from db import codec, rows, schema, served
from db.records import Measurement, Run, Schedule, Target, Workload

K = TypeVar("K")
_AT_ONCE = 500  # values that one statement asks for


def insert_run(connection: Connection, run: Run, started_at: str, origin: str) -> None:
    connection.execute(schema.runs.insert(), rows.run_columns(run, started_at) | {"origin": origin})


def insert_measurements(connection: Connection, facts: Sequence[tuple[str, str, Measurement]]) -> None:
    """Adds (run id, created_at, measurement) rows, and the workloads, targets and schedules that are new; keeps what
    then serves their kernels."""
    insert_rows(connection, facts)
    served.refresh(connection, {(m.workload, m.target, m.kernel_digest) for _, _, m in facts})


def insert_rows(connection: Connection, facts: Sequence[tuple[str, str, Measurement]]) -> None:
    """The same for a schema that has no table `served`."""
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

    All writers add in the order of digests, so that no two of them wait for each other on a server."""
    columns = {str(row["digest"]): row for row in values.values()}
    known = _known(connection, table, sorted(columns))
    if lacking := sorted(columns.keys() - known.keys()):
        # On a server another transaction may add the same value at the same moment: then its row is ours too.
        names = list(columns[lacking[0]])
        insert = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"
        connection.execute(text(f"{insert} ON CONFLICT (digest) DO NOTHING"), [columns[digest] for digest in lacking])
        known |= _known(connection, table, lacking)
    return {value: known[str(row["digest"])] for value, row in values.items()}


def _known(connection: Connection, table: Table, digests: Sequence[str]) -> dict[str, int]:
    """Digest -> row id of those that the store has."""
    found: dict[str, int] = {}
    for start in range(0, len(digests), _AT_ONCE):
        among = table.c.digest.in_(digests[start : start + _AT_ONCE])
        found |= {row.digest: row.id for row in connection.execute(select(table.c.digest, table.c.id).where(among))}
    return found


def _workload(w: Workload) -> dict[str, Any]:
    shape = {key: value for key, value in codec.workload_to_json(w).items() if key != "extra"}
    return shape | {"digest": codec.workload_digest(w), "json": codec.canonical_json(codec.workload_to_json(w))}


def _target(t: Target) -> dict[str, Any]:
    return codec.target_to_json(t) | {"digest": codec.target_digest(t)}


def _schedule(s: Schedule) -> dict[str, Any]:
    return {"digest": codec.schedule_digest(s), "json": codec.canonical_json(codec.schedule_to_json(s))}
