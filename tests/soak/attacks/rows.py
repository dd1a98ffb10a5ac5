"""Rows of a store with values that no version of ours wrote: wrong types, bad UTF-8, deep JSON, what cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import mutate, reading, stores
from ..attack import HANG_SECONDS, Case


@dataclass(frozen=True)
class Rows:
    """What says that a schedule is wrong is spared, so that it must be heeded."""

    name: str = "rows"
    share: float = 1.5
    limit_seconds: float = HANG_SECONDS

    def prepare(self, shared: Path) -> None:
        stores.make(shared)

    def run(self, case: Case) -> None:
        shared = stores.Shared(case.shared)
        path = shared.copy(case.folder)
        case.note(mutate.rows(path, case.rng, stores.SPARE))
        stores.resolved(path, shared.target, "rows")
        if case.rng.random() < 0.1:
            stores.computed(path, case.rng.choice(stores.WORKLOADS), "rows")
        reading.read(case, path)
