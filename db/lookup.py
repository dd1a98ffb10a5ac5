"""What kernels ask while they are built: the schedule that serves a workload. Reads only; a miss is an answer.

Standard library only, so that a model that runs tuned pays for no database toolkit. Nothing is memoised here, so that
a running sweep's new rows are seen; `kernels.resolve` keeps the answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

from db import codec, queries, rows
from db.paths import PACKAGED, default_store
from db.readers import Reader, Row, reader
from db.records import Outcome, Schedule, Served, Target, Workload
from db.rules import RULES, Rule, from_row
from db.rules import asked as rule_asked

Limit = Callable[[Workload, str], float]
"""(workload, variant) -> the largest relative error that its result may have."""

Decode = Callable[[Sequence[Any], str], rows.Answer]
"""(row, origin) -> what it says; raises ValueError for what must not be served."""

_OUTCOMES = frozenset(outcome.value for outcome in Outcome)


class Lookup:
    """The user's store, then the packaged one. Threads may share it; nothing is opened before the first question.

    A store that is missing, corrupt, locked, or of another schema has no rows, and `problems` says why. What was wrong
    with a file is forgotten when it changes.
    """

    def __init__(
        self,
        user: str | Path | None = None,
        packaged: str | Path | None = None,
        limit: Limit | None = None,
        without: Collection[tuple[Workload, Target, Schedule]] = (),
    ) -> None:
        """`user` is a path or SQLAlchemy URL, by default `paths.default_store`; `packaged` that of the wheel.

        limit: rows with a larger error are not served, whatever tolerance they were stored with. without: what the
        user's store has of these is passed over.
        """
        self._limit, self._without = limit, frozenset(without)
        self._stores: tuple[tuple[str, Reader], ...] = (
            ("user", reader(default_store() if user is None else user)),
            ("packaged", reader(PACKAGED if packaged is None else packaged)),
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """Why a store could not be read, as far as questions have met it."""
        return tuple(problem for _, store in self._stores for problem in store.problems)

    @property
    def refused(self) -> bool:
        """Whether a store could not be asked for a reason that may pass, such as a lock, and is left alone for a while.
        What it has is then not in the answers."""
        return any(store.refused for _, store in self._stores)

    def exact(self, workload: Workload, target: Target, kernel_digest: str) -> Served | None:
        """The schedule accepted for this workload on this very target, of the user's store if it has one.

        Here and in the other steps, packaged rows that this machine found wrong are passed over."""
        asked = queries.asked(workload, target, kernel_digest)

        def kept(row: Sequence[Any], origin: str) -> rows.Answer:
            return rows.kept(row, asked["kernel"], workload, target, origin)

        def exact(row: Sequence[Any], origin: str) -> rows.Answer:
            return rows.exact(row, asked["workload"], workload, target, origin)

        def answer(store: Reader, origin: str) -> Served | None:
            row = store.served(asked)
            if row is not None:  # the history is read only where this row must not serve, as a damaged one
                if row[0] is None:
                    return None
                if served := self._served(kept, row, store, origin):
                    return served
            served, claims = self._newest(exact, store, origin, store.ask(queries.EXACT, asked))
            if served is None and claims:
                served, _ = self._newest(exact, store, origin, store.ask(queries.EXACT_CHECKED, asked))
            return served

        for origin, store in self._stores:
            found = store.take(functools.partial(answer, store, origin))
            if found is not None and self._is_right(found, kernel_digest):
                return found
        return None

    def same_arch(self, workload: Workload, target: Target, kernel_digest: str, least_units: int = 0) -> Served | None:
        """The same workload's schedule on another device of this backend and arch, of nearest compute units. Those with
        fewer than `least_units` are passed over."""
        found = self._answers(queries.OTHER_DEVICES, queries.asked(workload, target, kernel_digest), rows.near)
        enough = (s for s in found if s.target.compute_units >= least_units)
        nearest = sorted(enough, key=lambda s: _units_apart(s.target, target))
        return next((s for s in nearest if self._is_right(s, kernel_digest)), None)

    def nearest(
        self, workload: Workload, target: Target, kernel_digest: str, within: float = inf, least_units: int = 0
    ) -> Served | None:
        """The schedule of the nearest other shape of the same op, format, dtypes and epilogue, at most `within` away
        (`queries.distance`). Devices with fewer compute units than `least_units` are passed over.

        Shapes tuned on this target come first; those tuned on other devices of its arch only if there are none.
        """
        asked = queries.asked(workload, target, kernel_digest)
        for sql in (queries.OTHER_SHAPES, queries.OTHER_SHAPES_AND_DEVICES):
            near = [
                (far, _units_apart(served.target, target), i, served)
                for i, served in enumerate(self._answers(sql, asked, rows.near))
                if served.target.compute_units >= least_units
                and (far := queries.distance(served.workload, workload)) < inf
                and far <= within
            ]
            for *_, served in sorted(near):  # ties: the user's before the packaged
                if self._is_right(served, kernel_digest):
                    return served
        return None

    def rules(self, backend: str, arch: str, kinds: Sequence[str]) -> tuple[Rule, ...]:
        """The rules of the packaged store for one of these classes (`rules.KINDS` of them), in no order."""
        origin, store = self._stores[-1]
        found = []
        for row in store.rows(RULES, rule_asked(backend, arch, kinds)):
            try:
                found.append(from_row(row))
            except ValueError as e:
                store.note(f"{origin} store: a rule cannot be read: {e}")
        return tuple(found)

    def found_wrong(self, workload: Workload, target: Target, kernel_digest: str) -> frozenset[str]:
        """Digests of the schedules that failed for this workload on this very target when they were last tried."""
        asked = queries.asked(workload, target, kernel_digest)
        found = (row for _, store in self._stores for row in store.rows(queries.KNOWN_BAD, asked))
        return frozenset(digest for digest, outcome, _ in found if outcome in _OUTCOMES)  # a damaged row says nothing

    def _is_right(self, served: Served, kernel_digest: str) -> bool:
        """False for a packaged row that failed here. The user's store itself leaves out what it knows to be wrong."""
        of = served.workload, served.target, kernel_digest
        return served.origin == "user" or codec.schedule_digest(served.schedule) not in self.found_wrong(*of)

    def _newest(self, decode: Decode, store: Reader, origin: str, found: Iterator[Row]) -> tuple[Served | None, bool]:
        """The first row that may serve, no more are read; and whether there were claims, which are passed over."""
        claims = False
        for *row, claim in found:
            if claim:
                claims = True
            elif served := self._served(decode, row, store, origin):
                return served, claims
        return None, claims

    def _answers(self, sql: str, asked: dict[str, Any], decode: Decode) -> Iterator[Served]:
        for origin, store in self._stores:
            for row in store.rows(sql, asked):
                if served := self._served(decode, row, store, origin):
                    yield served

    def _served(self, decode: Decode, row: Sequence[Any], store: Reader, origin: str) -> Served | None:
        """What the row says; None if it must not be served."""
        try:
            served, error = decode(row, origin)
        except ValueError as e:  # JSON that no version of ours wrote
            store.note(f"{origin} store: a row cannot be read: {e}")
            return None
        limit = inf if self._limit is None else self._limit(served.workload, served.schedule.variant)
        left_out = origin == "user" and (served.workload, served.target, served.schedule) in self._without
        return served if error <= limit and not left_out else None


def _units_apart(a: Target, b: Target) -> int:
    return abs(a.compute_units - b.compute_units)
