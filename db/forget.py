"""Deletes measurements of a store, which nothing else does. What was found wrong stays unless it is asked for: that it
is never served again depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db import codec, queries, served
from db.engine import reported, writing
from db.records import Target, Workload
from db.store import Store

Subject = tuple[Workload, Target, str]


@dataclass(frozen=True)
class Forgotten:
    """accepted: rows of accepted schedules. others: of baselines, candidates and checks. kept: of failures, which
    stay."""

    accepted: int
    others: int
    kept: int

    @property
    def rows(self) -> int:
        return self.accepted + self.others


def subjects(store: Store, wanted: Callable[[Workload, Target, str], bool]) -> list[Subject]:
    """The workloads, targets and kernel digests that the store has rows of, those that are wanted."""
    return [subject for subject in store.subjects() if wanted(*subject)]


def count(store: Store, of: Collection[Subject], run_id: str | None = None, failures: bool = False) -> Forgotten:
    """What `forget` would delete."""
    with reported(store.where), store.engine.connect() as connection:
        return _counted(connection, of, run_id, failures)


def forget(store: Store, of: Collection[Subject], run_id: str | None = None, failures: bool = False) -> Forgotten:
    """Deletes the rows of these subjects, or those of them that a run recorded; all of them or none.

    failures: also what failed or was found wrong, which otherwise stays. Raises StoreError.
    """
    with reported(store.where), writing(store.engine) as connection:
        found = _counted(connection, of, run_id, failures)
        for subject in of:
            connection.execute(text(queries.FORGET), _asked(subject, run_id, failures))
        for sql in queries.SWEEP_UP:
            connection.execute(text(sql))
        served.refresh(connection, of)
    return found


def _counted(connection: Connection, of: Collection[Subject], run_id: str | None, failures: bool) -> Forgotten:
    counts = [connection.execute(text(queries.COUNT), _asked(subject, run_id, failures)).one() for subject in of]
    accepted, others, kept = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0, 0)
    return Forgotten(accepted, others, kept)


def _asked(subject: Subject, run_id: str | None, failures: bool) -> dict[str, object]:
    workload, target, kernel_digest = subject
    digests = {"workload": codec.workload_digest(workload), "target": codec.target_digest(target)}
    return {**digests, "kernel_digest": kernel_digest, "run_id": run_id or "", "failures": int(failures)}
