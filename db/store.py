"""The only writer of a store, and the tuner's questions to it. Kernels never import this: they read through `lookup`.

Measurements are only ever added; `db.forget` alone deletes any. A method raises StoreError when the database refuses,
and then has stored nothing.
Rows that no version of ours wrote are left out of every answer, and `problems` says which.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, select, text

from db import codec, queries, rows, schema, served
from db.engine import empty_engine, open_engine, open_engine_read_only, reported, writing
from db.errors import StoreError, without_secrets
from db.inserts import insert_measurements, insert_run
from db.paths import default_store, is_missing, sqlite_path
from db.records import Measurement, Outcome, Run, Schedule, Served, Target, Workload
from db.rows import Recorded, StoredRun, Timing, Winner

__all__ = ["Recorded", "Stats", "Store", "StoreError", "Winner"]

R = TypeVar("R")


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
    """A store, open for writing or for reading. Holds no connection between calls, so threads and child processes may
    share it."""

    where: str
    engine: Engine
    problems: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, where: str | Path | None = None) -> Self:
        """Opens the store at a path or SQLAlchemy URL (default: `paths.default_store`), creating or migrating it.

        Raises StoreError, the file untouched, if it is corrupt, no store, or of a newer schema.
        """
        where = default_store() if where is None else where
        return cls(_shown(where), open_engine(where))

    @classmethod
    def read(cls, where: str | Path | None = None, missing_ok: bool = False) -> Self:
        """Opens a store for reading: nothing is written to it, and nobody waited for. An older schema is brought up to
        date in a copy. missing_ok: one that is not there is an empty one, and still not made.

        Raises StoreError.
        """
        where = default_store() if where is None else where
        empty = missing_ok and is_missing(where)
        return cls(_shown(where), empty_engine() if empty else open_engine_read_only(where))

    # writing

    def start_run(self, run: Run) -> None:
        """Stores what a run was asked, and mends what `stale` counts. Raises StoreError if its id is taken, ValueError
        for an impossible one."""
        run = rows.clean(run)
        with reported(self.where), writing(self.engine) as connection:
            insert_run(connection, run, rows.now(), "local")
            served.mend(connection)

    def record(self, run_id: str, measurements: Sequence[Measurement]) -> None:
        """Adds measurements of a started run in one transaction, and forgets the attempts that they end.

        Raises ValueError for impossible ones."""
        for m in measurements:
            rows.check(m)
        if measurements:
            created_at = rows.now()
            with reported(self.where), writing(self.engine) as connection:
                insert_measurements(connection, [(run_id, created_at, m) for m in measurements])
                connection.execute(
                    text(queries.END_ATTEMPT),
                    [_attempted(m.workload, m.target, m.kernel_digest, m.schedule) for m in measurements],
                )

    def attempt(self, workload: Workload, target: Target, kernel_digest: str, schedule: Schedule) -> None:
        """Marks that a schedule is about to run on the device, in case this process or the machine does not live to
        record how it ended."""
        with reported(self.where), writing(self.engine, durable=True) as connection:
            connection.execute(text(queries.ATTEMPT), _attempted(workload, target, kernel_digest, schedule))

    def forgive(self, workload: Workload, target: Target, kernel_digest: str, schedule: Schedule) -> None:
        """Takes one mark of `attempt` back: the run ended for a reason that is not the schedule's."""
        with reported(self.where), writing(self.engine) as connection:
            connection.execute(text(queries.FORGIVE), _attempted(workload, target, kernel_digest, schedule))

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Within, writing costs a quarter: SQLite folds its journal in whenever a last connection closes."""
        with reported(self.where), self.engine.connect() as connection:
            connection.execute(text(queries.REVISION)).all()
            connection.commit()
            yield

    # reading

    def finals(
        self, target: Target | None = None, op: str | None = None, format: str | None = None
    ) -> tuple[Winner, ...]:
        """Everything that is served, with the baselines of the same run, by target and workload."""
        found: dict[tuple[object, ...], list[Sequence[Any]]] = {}
        with reported(self.where), self.engine.connect() as connection:
            for row in connection.execute(text(queries.FINALS)):
                found.setdefault(tuple(row[queries.SUBJECT]), []).append(row)
            served = [best for kernel in found.values() if (best := self._first_timed(reversed(kernel)))]
            winners = [
                Winner(row, self._baselines(connection, row))
                for row, m in ((row, row.measurement) for row in served)
                if target in (None, m.target) and op in (None, m.workload.op) and format in (None, m.workload.format)
            ]
        return tuple(sorted(winners, key=lambda w: _order(w.row.measurement)))

    def claims(self, target: Target | None = None) -> tuple[Winner, ...]:
        """What was imported and has not been checked on its target yet, which is not served; in the order of import."""
        with reported(self.where), self.engine.connect() as connection:
            found = self._timed(connection.execute(text(queries.CLAIMS)))
            mine = [row for row in found if target in (None, row.measurement.target)]
            return tuple(Winner(row, self._baselines(connection, row)) for row in mine)

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
            history = self._recorded(connection.execute(text(queries.HISTORY), {"workload": found[0]}))
        if not history:
            raise StoreError(self.problems[-1] if self.problems else f"nothing was measured of {found[0]}")
        return tuple(history)

    def timings(self, workload: Workload, target: Target, kernel_digest: str) -> dict[str, float]:
        """Schedule digest -> median seconds when it was last timed for one kernel; imports are left out."""
        found = self._rows(queries.TIMINGS, queries.asked(workload, target, kernel_digest))
        return {str(digest): float(seconds) for digest, seconds in found if isinstance(seconds, float)}

    def subjects(self) -> tuple[tuple[Workload, Target, str], ...]:
        """The workloads, targets and kernel digests that there are measurements of."""
        return tuple(self._decoded(rows.subject, self._rows(queries.SUBJECTS, {})))

    def runs(self) -> tuple[StoredRun, ...]:
        """Every run, the oldest first."""
        return tuple(self._decoded(rows.stored_run, self._rows(queries.RUNS, {})))

    def run_of(self, prefix: str) -> StoredRun:
        """The one run whose id begins with `prefix`. Raises StoreError if none does, or several."""
        runs = self.runs()
        found = [r for r in runs if r.run.id.startswith(prefix)]
        if len(found) != 1:
            seen = "several begin with it" if found else "none begins with it"
            raise StoreError(f"no one run of id {prefix!r:.80}: {seen}; `autotune list --runs` shows all {len(runs)}")
        return found[0]

    def accepted(self, run_id: str) -> tuple[Winner, ...]:
        """What a run accepted and nothing speaks against, served or not."""
        with reported(self.where), self.engine.connect() as connection:
            found = self._timed(connection.execute(text(queries.OF_RUN), {"run_id": run_id}))
            return tuple(Winner(row, self._baselines(connection, row)) for row in found)

    def has_final(
        self, workload: Workload, target: Target, kernel_digest: str, beam_width: int, budget_seconds: float
    ) -> Measurement | None:
        """A final of a run here that was given at least this effort, which more effort subsumes: one that may be
        served, or one that is not because no model's pass is faster with it. An import is no effort of this machine."""
        effort = {"beam_width": beam_width, "budget_seconds": budget_seconds}
        found = self._first_timed(
            self._rows(queries.WITH_EFFORT, queries.asked(workload, target, kernel_digest) | effort)
        )
        return None if found is None else found.measurement

    def undecided(self, target: Target) -> tuple[Winner, ...]:
        """This machine's own finals that are served on `target`, and with which no model's pass was timed yet."""
        kept = {tuple(row) for row in self._rows(queries.KEPT, {"target": codec.target_digest(target)})}

        def is_kept(m: Measurement) -> bool:
            return (codec.workload_digest(m.workload), m.kernel_digest, codec.schedule_digest(m.schedule)) in kept

        own = (w for w in self.finals(target) if w.row.origin == "local")
        return tuple(w for w in own if not is_kept(w.row.measurement))

    def served(self, workload: Workload, target: Target, kernel_digest: str) -> Schedule | None:
        """What a kernel gets from this store: the result of this machine, or else a checked import."""
        asked = queries.asked(workload, target, kernel_digest)
        for sql in (queries.EXACT, queries.EXACT_CHECKED):
            sound = [row[:-1] for row in self._rows(sql, asked) if not row[-1]]  # the others are claims
            if found := self._decoded(lambda row: rows.exact(row, asked["workload"], workload, target, "user"), sound):
                return found[0][0].schedule
        return None

    def known_bad(self, workload: Workload, target: Target, kernel_digest: str) -> dict[str, tuple[Outcome, str]]:
        """Schedule digest -> how it failed and why, for those whose latest measurement failed. `slow` is no failure."""
        found = self._rows(queries.KNOWN_BAD, queries.asked(workload, target, kernel_digest))
        outcomes = {outcome.value for outcome in Outcome}
        return {digest: (Outcome(outcome), str(reason)) for digest, outcome, reason in found if outcome in outcomes}

    def attempts(self, workload: Workload, target: Target, kernel_digest: str) -> dict[str, int]:
        """Schedule digest -> how many times it was started, for those that have not ended since."""
        found = self._rows(queries.ATTEMPTS, queries.asked(workload, target, kernel_digest))
        return {str(digest): int(count) for digest, count in found}

    def since_final(self, workload: Workload, target: Target, kernel_digest: str) -> tuple[Recorded, ...]:
        """What was measured here since a schedule was last accepted, oldest first: where a search was cut off."""
        return tuple(self._recorded(self._rows(queries.SINCE_FINAL, queries.asked(workload, target, kernel_digest))))

    def best_probes(
        self, workload: Workload, target: Target, kernel_digest: str, limit: int
    ) -> tuple[Measurement, ...]:
        """The fastest working schedules, each by its latest measurement of any stage: where to resume."""
        found = self._rows(queries.FASTEST, queries.asked(workload, target, kernel_digest) | {"limit": limit})
        return tuple(row.measurement for row in self._timed(found))

    def target_timings(self, target: Target, op: str, limit: int) -> tuple[Timing, ...]:
        """(workload, schedule, median seconds) of the newest `limit` rows of an op that were timed on `target`."""
        asked = {"target": codec.target_digest(target), "op": op, "limit": limit}
        found = self._rows(queries.TARGET_TIMINGS, asked)
        return tuple(self._decoded(rows.timing, found))

    def replayable(self, workload: Workload, target: Target, limit: int) -> tuple[Recorded, ...]:
        """Rows of schedules that worked, under any version of the kernel: what was accepted, newest first, then what
        was fastest. A schedule may be there several times."""
        found = self._rows(queries.REPLAYABLE, queries.asked(workload, target, "") | {"limit": limit})
        return tuple(self._timed(found))

    def neighbours(self, workload: Workload, target: Target, kernel_digest: str, limit: int) -> tuple[Served, ...]:
        """What is served on `target` for other shapes of the same kind, nearest first (`queries.distance`)."""
        found = self._rows(queries.OTHER_SHAPES, queries.asked(workload, target, kernel_digest))
        served = self._decoded(lambda row: rows.near(row, "user"), found)
        near = [(queries.distance(s.workload, workload), s) for s, _ in served]
        near.sort(key=lambda n: (n[0], codec.workload_digest(n[1].workload)))
        return tuple(s for far, s in near[:limit] if far < inf)

    def stats(self) -> Stats:
        counts = {t: int(self._rows(f"SELECT count(*) FROM {t}", {})[0][0]) for t in queries.TABLES}
        path = sqlite_path(self.where)
        files = [] if path is None else [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")]
        nbytes = sum(os.path.getsize(f) for f in files if f.exists()) if files else None
        revision = str(self._rows(queries.REVISION, {})[0][0])
        return Stats(self.where if path is None else str(path), revision, nbytes, counts, len(self.finals()))

    def stale(self) -> int:
        """Of how many kernels something else is kept for lookups than the measurements say; no writer of ours leaves
        any."""
        with reported(self.where), self.engine.connect() as connection:
            has_served = connection.execute(text(queries.REVISION)).scalar() in queries.WITH_SERVED
            return len(served.stale(connection)) if has_served else 0

    def _baselines(self, connection: Connection, row: Recorded) -> tuple[Recorded, ...]:
        m = row.measurement
        asked = queries.asked(m.workload, m.target, m.kernel_digest) | {"run_id": row.run.id}
        return tuple(self._recorded(connection.execute(text(queries.BASELINES), asked)))

    def _timed(self, found: Iterable[Sequence[Any]]) -> list[Recorded]:
        """Those rows that have the times that their medians are of."""
        read = self._recorded(found)
        for row in read:
            if not row.measurement.samples:
                self._note(f"store {self.where}: measurement {row.id} was served without a time")
        return [row for row in read if row.measurement.samples]

    def _first_timed(self, found: Iterable[Sequence[Any]]) -> Recorded | None:
        return next((read[0] for row in found if (read := self._timed([row]))), None)

    def _recorded(self, found: Iterable[Sequence[Any]]) -> list[Recorded]:
        return self._decoded(rows.recorded, found)

    def _decoded(self, decode: Callable[[Sequence[Any]], R], found: Iterable[Sequence[Any]]) -> list[R]:
        """The rows that can be read; of the others `problems` tells."""
        read = []
        for row in found:
            try:
                read.append(decode(tuple(row)))
            except ValueError as e:
                self._note(f"store {self.where}: a row cannot be read and is left out: {' '.join(str(e).split())}")
        return read

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _rows(self, sql: str, asked: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        with reported(self.where), self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql), asked)]


def _shown(where: str | Path) -> str:
    """The place of a store for messages: the file behind a URL of SQLite, else the URL without its secrets."""
    path = sqlite_path(where)
    return without_secrets(str(where)) if path is None else str(path)


def _attempted(workload: Workload, target: Target, kernel_digest: str, schedule: Schedule) -> dict[str, Any]:
    return queries.asked(workload, target, kernel_digest) | {"schedule": codec.schedule_digest(schedule)}


def _order(m: Measurement) -> tuple[Any, ...]:
    w = m.workload
    return str(m.target), w.op, w.format, w.m, w.n, w.k, codec.workload_digest(w), m.kernel_digest
