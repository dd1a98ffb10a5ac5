"""Several processes that write and read one store at once, some of which are killed."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path

from support.store_rows import replace

from db.store import Store

from .. import processes, stores, verbs
from ..attack import HANG_SECONDS, BrokenError, Case, Promise

_BATCHES = 15


@dataclass(frozen=True)
class Writers:
    name: str = "writers"
    share: float = 0.7
    limit_seconds: float = 2 * HANG_SECONDS

    def prepare(self, shared: Path) -> None:
        stores.make(shared)

    def run(self, case: Case) -> None:
        shared, rng = stores.Shared(case.shared), case.rng
        fresh = rng.random() < 0.3
        path = case.folder / "store.sqlite" if fresh else shared.copy(case.folder)
        before = frozenset() if fresh else stores.committed(path)
        kinds = ["write", "write", *(rng.choice(("write", "read", "list", "import")) for _ in range(rng.randint(0, 3)))]
        case.note(f"{kinds} on a {'new' if fresh else 'filled'} store")
        children = [processes.fork(_work(kind, i, path, case), case.folder / f"log{i}") for i, kind in enumerate(kinds)]
        killed = rng.random() < 0.4
        if killed:
            time.sleep(rng.random() * 0.3)
            children[0].hit(signal.SIGKILL)
        for i, (kind, child) in enumerate(zip(kinds, children, strict=True)):
            status = child.wait(f"{kind} beside other writers")
            if i == 0 and killed:
                continue
            if kind in ("list", "import"):  # who reads a store that is being made may be told that it is empty
                verbs.checked((kind,), status, child.said, (0, 2) if kind == "list" and fresh else (0,))
            elif status != 0:
                last = next((line for line in reversed(child.said.splitlines()) if line), "")
                raise BrokenError(Promise.TRACEBACK, f"{kind} beside others: {last:.80}", child.said)
        stores.kept(path, before, "beside other writers")
        found = {(row[1], row[12]) for row in stores.committed(path)}
        for i, kind in enumerate(kinds):
            done = case.folder / f"done{i}"
            told = {(f"w{i}", int(n)) for n in done.read_text().split()} if kind == "write" and done.exists() else set()
            if lost := told - found:
                raise BrokenError(Promise.ROWS, "beside other writers", f"{sorted(lost)}")
        stores.resolved(path, shared.target, "beside writers")


def _work(kind: str, number: int, path: Path, case: Case) -> processes.Work:
    shared = stores.Shared(case.shared)

    def write() -> None:
        store = Store.open(path)
        store.start_run(replace(stores.RUN, id=f"w{number}"))
        with (case.folder / f"done{number}").open("w") as done:
            for i in range(_BATCHES):
                rows = [stores.fact(w, shared.target, stores.good(w), nbytes=i) for w in stores.WORKLOADS[1::2]]
                store.record(f"w{number}", rows)
                done.write(f"{i}\n")
                done.flush()

    def read() -> None:
        for _ in range(3):
            stores.resolved(path, shared.target, "beside writers", strict=False)

    foreign = verbs.importing(shared.foreign_file, path)
    listed = processes.command("list", "--all-targets", "--db", str(path))
    return {"write": write, "read": read, "list": listed, "import": processes.command(*foreign)}[kind]
