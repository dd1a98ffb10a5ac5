"""Pages of a store overwritten, swapped and cut off. What is read from what is left may be wrong; it may not hurt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import mutate, reading, stores
from ..attack import HANG_SECONDS, Case


@dataclass(frozen=True)
class Pages:
    name: str = "pages"
    share: float = 1.0
    limit_seconds: float = HANG_SECONDS

    def prepare(self, shared: Path) -> None:
        stores.make(shared)

    def run(self, case: Case) -> None:
        shared = stores.Shared(case.shared)
        path = shared.copy(case.folder)
        case.note(mutate.pages(path, case.rng, 1024))
        if case.rng.random() < 0.2:
            end = case.rng.choice(("-wal", "-journal", "-shm"))
            (case.folder / f"store.sqlite{end}").write_bytes(case.rng.randbytes(case.rng.choice((0, 32, 4000))))
            case.note(f"a journal {end}")
        stores.resolved(path, shared.target, "pages", strict=False)
        reading.read(case, path)
