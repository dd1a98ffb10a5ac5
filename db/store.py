"""The only writer of a store, and the tuner's questions to it. Kernels never import this: they read through `lookup`.

Rows are only ever added. A method raises StoreError when the database refuses, and then has stored nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, select, text

from db import codec, queries, rows, schema
from db.engine import open_engine, reported, writing
from db.errors import StoreError, without_secrets
from db.inserts import insert_measurements, insert_run
from db.paths import default_store, sqlite_path
from db.records import Measurement, Outcome, Run, Served, Target, Workload
from db.rows import Recorded, Winner

__all__ = ["Recorded", "Stats", "Store", "StoreError", "Winner"]


@dataclass(frozen=True)
class Stats:
    """`rows` counts each table's; `nbytes` is the size on disk, journals included, None for a database server."""

    where: str
    schema: str
    nbytes: int | None
    rows: Mapping[str, int]
    served: int


@dataclass(frozen=True)
class Store:
    """A store open for writing. Holds no connection between calls, so threads and child processes may share it."""

    where: str
    engine: Engine

    @classmethod
    def open(cls, where: str | Path | None = None) -> Self:
        """Opens the store at a path or SQLAlchemy URL (default: `paths.default_store`), creating or migrating it.

        Raises StoreError, the file untouched, if it is corrupt, no store, or of a newer schema.
        """
        where = default_store() if where is None else where
        engine = open_engine(where)
        path = sqlite_path(where)
        return cls(without_secrets(str(where)) if path is None else str(path), engine)

    # writing

    def start_run(self, run: Run) -> None:
        """Stores what a run was asked. Raises StoreError if its id is taken, ValueError for an impossible one."""
        run = rows.clean(run)
        with reported(self.where), writing(self.engine) as connection:
            insert_run(connection, run, rows.now(), "local")

    def record(self, run_id: str, measurements: Sequence[Measurement]) -> None:
        """Adds measurements of a started run in one transaction. Raises ValueError for impossible ones."""
        for m in measurements:
            rows.check(m)
        if measurements:
            created_at = rows.now()
            with reported(self.where), writing(self.engine) as connection:
                insert_measurements(connection, [(run_id, created_at, m) for m in measurements])

    # reading

    def finals(
        self, target: Target | None = None, op: str | None = None, format: str | None = None
    ) -> tuple[Winner, ...]:
        """Everything that is served, with the baselines of the same run, by target and workload."""
        newest: dict[tuple[object, ...], tuple[Any, ...]] = {}
        with reported(self.where), self.engine.connect() as connection:
            for row in connection.execute(text(queries.FINALS)):
                newest[tuple(row[queries.SUBJECT])] = tuple(row)
            served = [rows.recorded(row) for row in newest.values()]
            winners = [
                Winner(row, _baselines(connection, row))
                for row, m in ((row, row.measurement) for row in served)
                if target in (None, m.target) and op in (None, m.workload.op) and format in (None, m.workload.format)
            ]
        return tuple(sorted(winners, key=lambda w: _order(w.row.measurement)))

    def claims(self, target: Target | None = None) -> tuple[Winner, ...]:
        """What was imported and has not been checked on its target yet, which is not served; in the order of import."""
        with reported(self.where), self.engine.connect() as connection:
            found = [rows.recorded(tuple(row)) for row in connection.execute(text(queries.CLAIMS))]
            return tuple(Winner(r, _baselines(connection, r)) for r in found if target in (None, r.measurement.target))

    def measurements(self, prefix: str) -> tuple[Recorded, ...]:
        """The history of the one workload whose digest begins with `prefix` (hex), oldest first.

        Raises StoreError if no workload's digest does, or several.
        """
        if not re.fullmatch(r"[0-9a-f]{1,64}", prefix):
            raise StoreError(f"{prefix!r:.80} is no digest: 1 to 64 characters of 0-9 a-f")
        digest = schema.workloads.c.digest
        with reported(self.where), self.engine.connect() as connection:
            between = digest.between(prefix, prefix + "g")  # "g" sorts after every hex digit
            found = connection.execute(select(digest).where(between).order_by(digest).limit(5)).scalars().all()
            if len(found) != 1:
                seen = (
                    f"several begin with it: {', '.join(d[:16] for d in found)}"
                    if found
                    else "none begins with it; `autotune list --all-targets` shows all"
                )
                raise StoreError(f"no one workload of digest {prefix!r}: {seen}")
            return tuple(
                rows.recorded(tuple(r)) for r in connection.execute(text(queries.HISTORY), {"workload": found[0]})
            )

    def has_final(
        self, workload: Workload, target: Target, kernel_digest: str, beam_width: int, budget_seconds: float
    ) -> Measurement | None:
        """A final that may be served, of a run that was given at least this effort: more effort subsumes less."""
        effort = {"beam_width": beam_width, "budget_seconds": budget_seconds}
        found = self._rows(queries.WITH_EFFORT, queries.asked(workload, target, kernel_digest) | effort)
        return rows.recorded(found[0]).measurement if found else None

    def known_bad(self, workload: Workload, target: Target, kernel_digest: str) -> dict[str, tuple[Outcome, str]]:
        """Schedule digest -> how it failed and why, for those whose latest measurement failed. `slow` is no failure."""
        found = self._rows(queries.KNOWN_BAD, queries.asked(workload, target, kernel_digest))
        return {digest: (Outcome(outcome), reason) for digest, outcome, reason in found}

    def best_probes(
        self, workload: Workload, target: Target, kernel_digest: str, limit: int
    ) -> tuple[Measurement, ...]:
        """The fastest working schedules, each by its latest measurement of any stage: where to resume."""
        found = self._rows(queries.FASTEST, queries.asked(workload, target, kernel_digest) | {"limit": limit})
        return tuple(rows.recorded(row).measurement for row in found)

    def neighbours(self, workload: Workload, target: Target, kernel_digest: str, limit: int) -> tuple[Served, ...]:
        """What is served on `target` for other shapes of the same kind, nearest first (`queries.distance`)."""
        found = self._rows(queries.OTHER_SHAPES, queries.asked(workload, target, kernel_digest))
        near = [(queries.distance(s.workload, workload), s) for s in (rows.near(row, "user") for row in found)]
        near.sort(key=lambda n: (n[0], codec.workload_digest(n[1].workload)))
        return tuple(served for far, served in near[:limit] if far < inf)

    def stats(self) -> Stats:
        counts = {t: int(self._rows(f"SELECT count(*) FROM {t}", {})[0][0]) for t in queries.TABLES}
        path = sqlite_path(self.where)
        files = [] if path is None else [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")]
        nbytes = sum(os.path.getsize(f) for f in files if f.exists()) if files else None
        revision = str(self._rows(queries.REVISION, {})[0][0])
        return Stats(self.where if path is None else str(path), revision, nbytes, counts, len(self.finals()))

    def _rows(self, sql: str, asked: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        with reported(self.where), self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql), asked)]


def _order(m: Measurement) -> tuple[Any, ...]:
    w = m.workload
    return str(m.target), w.op, w.format, w.m, w.n, w.k, codec.workload_digest(w), m.kernel_digest


def _baselines(connection: Connection, row: Recorded) -> tuple[Recorded, ...]:
    m = row.measurement
    asked = queries.asked(m.workload, m.target, m.kernel_digest) | {"run_id": row.run.id}
    return tuple(rows.recorded(tuple(r)) for r in connection.execute(text(queries.BASELINES), asked))
