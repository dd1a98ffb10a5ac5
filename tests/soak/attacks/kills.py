"""Commands and writers that are killed, ended or interrupted at any moment of their work."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from support.store_rows import replace

from db.store import Store

from .. import processes, reading, stores, verbs
from ..attack import HANG_SECONDS, BrokenError, Case, Promise

_LONGEST_SECONDS = 0.4  # until the signal; all of this work takes less on an idle machine
_IMPORTED = 300


@dataclass(frozen=True)
class Kills:
    name: str = "kills"
    share: float = 1.0
    limit_seconds: float = 2 * HANG_SECONDS

    def prepare(self, shared: Path) -> None:
        stores.make(shared)
        value = dict(stores.Shared(shared).foreign)
        finals = list(value["finals"])  # type: ignore[call-overload]
        many = [final | {"kernel_digest": f"{i:064x}"} for i in range(_IMPORTED // len(finals)) for final in finals]
        (shared / "many.json").write_text(json.dumps({**value, "finals": many}))

    def run(self, case: Case) -> None:
        shared, rng = stores.Shared(case.shared), case.rng
        path, before = shared.copy(case.folder), stores.committed(shared.store)
        number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        seconds = rng.random() ** 2 * _LONGEST_SECONDS
        kinds = {"import": self._import, "export": self._export, "record": self._record, "forget": self._forget}
        kind = rng.choice(("import", "import", "export", "export", "record", "forget"))
        case.note(f"{number.name} {seconds:.4f} s into {kind}")
        kinds[kind](case, path, number, seconds)
        stores.kept(path, frozenset() if kind == "forget" else before, f"{kind} hit by {number.name}")
        stores.resolved(path, shared.target, f"after a {kind} that was hit")
        reading.read(case, path, 1, (0, 2) if kind == "forget" else (0,))  # there may be nothing to compare

    def _import(self, case: Case, path: Path, number: signal.Signals, seconds: float) -> None:
        before = stores.committed(path)
        arguments = verbs.importing(case.shared / "many.json", path)
        self._hit(case, arguments, number, seconds)
        after = stores.kept(path, before, "import that was hit")
        verbs.run(*arguments, statuses=(0,))
        whole = stores.committed(path)
        if len(after) not in (len(before), len(whole)):
            raise BrokenError(Promise.ROWS, "half an import", f"{len(before)}, {len(after)}, {len(whole)} rows")

    def _export(self, case: Case, path: Path, number: signal.Signals, seconds: float) -> None:
        file = case.folder / case.rng.choice(("out.json", "out.sqlite"))
        verbs.run("export", "-o", str(file), "--db", str(path), statuses=(0,))
        old = file.read_bytes()
        verbs.run(*verbs.importing(case.shared / "many.json", path), statuses=(0,))
        self._hit(case, ("export", "-o", str(file), "--db", str(path)), number, seconds)
        if not file.exists():
            raise BrokenError(Promise.ROWS, f"an export to {file.name} that was hit removed the one before")
        if file.read_bytes() != old:
            verbs.run(*verbs.importing(file, case.folder / "other.sqlite"), statuses=(0,))

    def _forget(self, case: Case, path: Path, number: signal.Signals, seconds: float) -> None:
        before = stores.committed(path)
        arguments = ("forget", "--target", "CPU", "--yes", "--db", str(path))
        self._hit(case, arguments, number, seconds)
        after = stores.kept(path, frozenset(), "forget that was hit")
        verbs.run(*arguments, statuses=(0,))
        whole = stores.committed(path)
        if after not in (before, whole):
            raise BrokenError(Promise.ROWS, "half forgotten", f"{len(before)}, {len(after)}, {len(whole)} rows")
        if lost := {row for row in before if row[9] == "wrong_result"} - whole:
            raise BrokenError(Promise.ROWS, "what was found wrong is forgotten", f"{len(lost)} rows")

    def _record(self, case: Case, path: Path, number: signal.Signals, seconds: float) -> None:
        target, done = stores.Shared(case.shared).target, case.folder / "done"

        def work() -> None:
            store = Store.open(path)
            run = replace(stores.RUN, id="killed")
            store.start_run(run)
            with done.open("a") as told:
                for i in range(200):
                    rows = [stores.fact(w, target, stores.good(w), nbytes=i) for w in stores.WORKLOADS]
                    store.record(run.id, rows)
                    told.write(f"{i}\n")
                    told.flush()

        child = processes.fork(work, case.folder / "log")
        time.sleep(seconds)
        child.hit(number)
        child.wait("a writer that was hit")
        told = [int(line) for line in done.read_text().splitlines()] if done.exists() else []
        found = {row[12] for row in stores.committed(path) if row[1] == "killed"}
        if lost := set(told) - found:
            raise BrokenError(Promise.ROWS, "rows of a writer that was hit", f"batches {sorted(lost)}")

    def _hit(self, case: Case, arguments: tuple[str, ...], number: signal.Signals, seconds: float) -> None:
        child = processes.fork(processes.command(*arguments), case.folder / "log")
        time.sleep(seconds)
        child.hit(number)
        status = child.wait(f"{arguments[0]} hit by {number.name}")
        verbs.checked(arguments, status, child.said, (0, *processes.ENDED[number]))
