"""Whole measurements, those of failures too, as JSON on the way between the processes of one fleet.

Not for files of others: for those `exchange` has a format that claims less, and an import that trusts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import select, text

from db import codec, payload, queries, rows, schema
from db.engine import reported, writing
from db.inserts import insert_measurements, insert_run
from db.payload import ExchangeError
from db.records import Measurement, Outcome, Run, Stage, Workload
from db.rows import Recorded, Timing
from db.store import Store


def rows_to_json(recorded: Iterable[Recorded]) -> dict[str, Any]:
    found = tuple(recorded)
    runs = {r.run.id: payload.run_to_json(r.run, r.started_at) for r in found}
    return {"runs": list(runs.values()), "rows": [_row_to_json(r) for r in found]}


def timings_to_json(timings: Iterable[Timing]) -> list[Any]:
    """Of each workload its schedules and their seconds."""
    found: dict[Workload, list[Any]] = {}
    for workload, schedule, seconds in timings:
        found.setdefault(workload, []).append([codec.schedule_to_json(schedule), seconds])
    return [[codec.workload_to_json(workload), timed] for workload, timed in found.items()]


def timings_from_json(value: Iterable[Any]) -> Iterator[Timing]:
    for workload, timed in value:
        w = codec.workload_from_json(workload)
        yield from ((w, codec.schedule_from_json(schedule), float(seconds)) for schedule, seconds in timed)


def add_rows(store: Store, value: Mapping[str, Any]) -> None:
    """Adds rows and their runs in one transaction, as measured for this store, and forgets the attempts that they end.

    Raises ExchangeError for what `rows_to_json` has not written, StoreError."""
    try:
        runs = [_run_from_json(run) for run in value["runs"]]
        facts = [_row_from_json(row) for row in value["rows"]]
    except (KeyError, TypeError, ValueError) as e:
        raise ExchangeError(f"rows of a worker cannot be read ({type(e).__name__}: {e}); is it of this version?") from e
    with reported(store.where), writing(store.engine) as connection:
        for run, started_at in runs:
            if connection.execute(select(schema.runs.c.id).where(schema.runs.c.id == run.id)).first() is None:
                insert_run(connection, run, started_at, "local")
        insert_measurements(connection, facts)
        if facts:
            connection.execute(text(queries.END_ATTEMPT), [_attempted(m) for _, _, m in facts])


def _attempted(m: Measurement) -> dict[str, Any]:
    asked = queries.asked(m.workload, m.target, m.kernel_digest)
    return asked | {"schedule": codec.schedule_digest(m.schedule)}


def _row_to_json(row: Recorded) -> dict[str, Any]:
    m = row.measurement
    return {
        "run": row.run.id,
        "workload": codec.workload_to_json(m.workload),
        "target": codec.target_to_json(m.target),
        "kernel_digest": m.kernel_digest,
        "stage": m.stage.value,
        "outcome": m.outcome.value,
        "reason": m.reason,
        "simulated": m.simulated,
        **payload.fact_to_json(m, row.created_at),
    }


def _run_from_json(value: Mapping[str, Any]) -> tuple[Run, str]:
    versions = tuple(sorted(value["versions"].items()))
    run = Run(value["id"], value["command"], value["beam_width"], value["budget_seconds"], versions)
    return rows.clean(run), str(value["started_at"])


def _row_from_json(value: Mapping[str, Any]) -> tuple[str, str, Measurement]:
    measurement = Measurement(
        codec.workload_from_json(value["workload"]),
        codec.target_from_json(value["target"]),
        codec.schedule_from_json(value["schedule"]),
        value["kernel_digest"],
        Stage(value["stage"]),
        Outcome(value["outcome"]),
        samples=tuple(map(float, value["samples"])),
        nbytes=int(value["nbytes"]),
        error=value["error"],
        tolerance=value["tolerance"],
        reason=str(value["reason"]),
        clock=str(value["clock"]),
        simulated=bool(value["simulated"]),
    )
    rows.check(measurement)
    return str(value["run"]), str(value["created_at"]), measurement
