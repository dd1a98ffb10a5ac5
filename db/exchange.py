"""What is served, as JSON that may travel: export, and an import that trusts nothing it is given.

Data only: names in the JSON are checked against tables and never imported, called or evaluated. The format, version 3:

    {"format": "tinygrad-autotune", "version": 3,
     "runs":   [{id, started_at, command, beam_width, budget_seconds, versions: {name: version}}],
     "finals": [{run, workload, target, kernel_digest, baselines: [fact], others: [{schedule, seconds}], ...fact}],
     "rules":  [{backend, arch, class, schedules, why}]}

where a fact is {schedule, samples (seconds a launch), nbytes, error, tolerance, clock, created_at}, and `run` is the id
of one of the runs. Workloads, targets and schedules are spelt as `codec` spells them. `others` are the schedules that
other workloads of the op were tuned to, timed on this one; `rules` (`db.rules`) are written by hand, and no export has
any. Both may be left out; they are for `autotune pack`, and an import leaves them.
Version 2 has neither; version 1, whose workloads have texts for numbers, is imported too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, text

from db import codec, payload, queries, rows, schema
from db.cross_times import cross_times
from db.engine import reported, seal, writing
from db.errors import StoreError, shown
from db.files import replacing
from db.inserts import insert_measurements, insert_run
from db.payload import ExchangeError, Fact, load_json
from db.records import Run, Schedule, Target
from db.rules import Rule, to_columns
from db.store import Store, Winner

__all__ = [
    "Counts",
    "ExchangeError",
    "export_payload",
    "import_payload",
    "load_json",
    "payload_of",
    "readable",
    "write_sqlite",
]
_WIDTH = 160


@dataclass(frozen=True)
class Counts:
    """What an import added, and how many of the file's measurements were here already."""

    runs: int
    measurements: int
    known: int


def export_payload(
    store: Store, target: Target | None = None, op: str | None = None, format: str | None = None, claims: bool = False
) -> dict[str, Any]:
    """What the store serves (of one target, op or format), with baselines and runs. Equal stores, equal JSON.

    claims: also what it would serve if all that was imported were right.
    """
    winners = list(store.finals(target, op, format))
    if claims:
        unserved = {_subject(w): w for w in store.claims(target)}
        served = {_subject(w) for w in winners if payload.is_sound(w.row.measurement)}
        winners += [unserved[key] for key in unserved.keys() - served]
        winners.sort(key=lambda w: w.row.id)
    return payload_of(store, winners)


def payload_of(store: Store, winners: Sequence[Winner]) -> dict[str, Any]:
    """The winners whose rows may travel, in their order, with their baselines, the times of others on their workloads,
    and runs."""
    winners = [w for w in winners if payload.is_sound(w.row.measurement)]
    others = cross_times(store, winners)
    runs = {w.row.run.id: payload.run_to_json(w.row.run, w.row.started_at) for w in winners}
    return {
        "format": payload.FORMAT,
        "version": payload.VERSION,
        "runs": [runs[id_] for id_ in sorted(runs)],
        "finals": [_final(w, o) for w, o in zip(winners, others, strict=True)],
    }


def readable(value: Any, indent: str = "") -> str:
    """JSON for people and for `git diff`: what is short, or a list of numbers, is on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inner = f"{indent} "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {readable(part, inner)}" for key, part in value.items()]
        opening, closing = "{}"
    elif any(isinstance(part, dict | list) for part in value):
        parts = [readable(part, inner) for part in value]
        opening, closing = "[]"
    else:
        return line
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{closing}"


def import_payload(store: Store, value: object, origin: str = "imported") -> Counts:
    """`import_parsed` of a payload's rows. Raises ExchangeError, naming the field, for anything that `export_payload`
    would not have written."""
    return import_parsed(store, payload.parse(value), origin)


def import_parsed(store: Store, parsed: payload.Payload, origin: str = "imported") -> Counts:
    """Adds a payload's rows, all of them or none, as claims: none is served before its schedule has been found right on
    its target (`Store.claims`). Twice adds nothing more. `origin` "packaged": the file was checked already.

    Raises ExchangeError for rows of a run of this store that it did not record.
    """
    with reported(store.where), writing(store.engine) as connection:
        ours = {run.id: _is_ours(connection, i, run, at) for i, (run, at) in enumerate(parsed.runs)}
        new = []
        for fact in parsed.facts:
            if not _is_known(connection, fact):
                if ours[fact.run_id] not in (None, "imported"):  # a file must not pass its rows off as our own
                    raise ExchangeError(f"{fact.path}: of a run of this very store, which never recorded it")
                new.append((fact.run_id, fact.created_at, fact.measurement))
        added = [(run, at) for run, at in parsed.runs if ours[run.id] is None]
        for run, at in added:
            insert_run(connection, run, at, origin)
        insert_measurements(connection, new)
    return Counts(len(added), len(new), len(parsed.facts) - len(new))


def write_sqlite(path: str | Path, value: object, rules: Sequence[Rule] = ()) -> Counts:
    """Writes a payload as a store of its own: one file without journals, readable from a read-only folder. rules: what
    it has besides.

    An existing file is replaced, in one step and only by a finished one.

    Raises ExchangeError like `import_payload`, and StoreError or FileError where the file cannot be written.
    """
    parsed = payload.parse(value)  # before anything is written
    if os.path.exists(f"{os.path.realpath(path)}-wal"):  # its journal would be taken for the new file's
        raise StoreError(f"{path}: a store in use; choose another name")
    if os.path.isdir(path):
        raise StoreError(f"{path}: Is a directory")
    with replacing(path) as draft:
        try:
            store = Store.open(draft)
            counts = import_parsed(store, parsed, "packaged")
            with reported(draft), writing(store.engine) as connection:
                if rules:
                    connection.execute(schema.rules.insert(), [to_columns(rule) for rule in rules])
            with reported(draft):
                seal(store.engine)
        except StoreError as e:
            raise StoreError(str(e).replace(str(draft), str(path))) from e
    return counts


def _subject(winner: Winner) -> tuple[object, ...]:
    m = winner.row.measurement
    return m.workload, m.target, m.kernel_digest


def _final(winner: Winner, others: Mapping[Schedule, float]) -> dict[str, Any]:
    m = winner.row.measurement
    return {
        "run": winner.row.run.id,
        "workload": codec.workload_to_json(m.workload),
        "target": codec.target_to_json(m.target),
        "kernel_digest": m.kernel_digest,
        **payload.fact_to_json(m, winner.row.created_at),
        "baselines": [
            payload.fact_to_json(b.measurement, b.created_at)
            for b in winner.baselines
            if payload.is_sound(b.measurement)
        ],
        **({"others": [_other(s, seconds) for s, seconds in others.items()]} if others else {}),
    }


def _other(schedule: Schedule, seconds: float) -> dict[str, Any]:
    return {"schedule": codec.schedule_to_json(schedule), "seconds": float(f"{seconds:.4g}")}


def _is_ours(connection: Connection, index: int, run: Run, started_at: str) -> str | None:
    """The origin of a run that the store has, None if it is new; a namesake is refused."""
    found = connection.execute(select(schema.runs).where(schema.runs.c.id == run.id)).mappings().one_or_none()
    if found is None:
        return None
    for name, value in rows.run_columns(run, started_at).items():
        if found[name] != value:
            raise ExchangeError(
                f"runs[{index}].{name}: {shown(value)}, but the run {run.id!r} known here has {shown(found[name])}"
            )
    return str(found["origin"])


def _is_known(connection: Connection, fact: Fact) -> bool:
    m = fact.measurement
    asked = queries.asked(m.workload, m.target, m.kernel_digest)
    columns = rows.to_columns(m) | {"run_id": fact.run_id, "created_at": fact.created_at}
    asked |= columns | {"schedule": codec.schedule_digest(m.schedule)}
    return connection.execute(text(queries.SAME_FACT), asked).first() is not None
