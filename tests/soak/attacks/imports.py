"""Files for `autotune import` that are no exports, or exports that want too much."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from .. import mutate, reading, stores, verbs
from ..attack import HANG_SECONDS, BrokenError, Case, Promise


@dataclass(frozen=True)
class Imports:
    name: str = "imports"
    share: float = 1.5
    limit_seconds: float = 2 * HANG_SECONDS  # some are compiled and run

    def prepare(self, shared: Path) -> None:
        stores.make(shared)

    def run(self, case: Case) -> None:
        shared = stores.Shared(case.shared)
        path, before = shared.copy(case.folder), stores.committed(shared.store)
        file = self._file(case, shared)
        verify = case.rng.random() < 0.03
        status = verbs.run(*verbs.importing(file, path, verify=verify)).status
        after = stores.kept(path, before, "import")
        if status == 2 and after != before:
            raise BrokenError(Promise.ROWS, "a refused import left rows", f"{len(after - before)} rows")
        stores.resolved(path, shared.target, "after an import")
        stores.ours_first(path, shared.target, "after an import")
        if verify:
            stores.computed(path, case.rng.choice(stores.WORKLOADS), "after an import")
        reading.read(case, path, 1, (0,))

    def _file(self, case: Case, shared: stores.Shared) -> str:
        rng, folder = case.rng, case.folder
        kind = rng.choice(
            ("value", "value", "value", "value", "bytes", "text", "rows", "rows", "pages", "plain", "odd")
        )
        case.note(f"import of {kind}")
        named = folder / f"in{rng.choice(('.json', '.JSON', '', '.txt'))}"
        stored = folder / f"in{rng.choice(('.sqlite', '.db'))}"
        match kind:
            case "value":
                named.write_bytes(mutate.spelt(mutate.value(shared.foreign, rng), rng))
            case "bytes":
                named.write_bytes(mutate.flipped(mutate.spelt(shared.foreign, rng), rng))
            case "text":
                named.write_text(rng.choice(mutate.TEXTS), encoding="utf-8")
            case "plain":
                named.write_bytes(mutate.spelt(shared.foreign, rng))
            case "rows" | "pages":
                shutil.copy(shared.folder / "abroad.sqlite", stored)
                case.note(mutate.rows(stored, rng) if kind == "rows" else mutate.pages(stored, rng, 1024))
                return str(stored)
            case "odd":
                odd = rng.choice(("/dev/zero", "/dev/null", ".", "none", "none.sqlite", "", "/dev/full"))
                case.note(f"import of {odd!r}")
                return odd
        return str(named)
