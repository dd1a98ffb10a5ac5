"""Disks without room: a limit on files, a small disk, a stdout that is full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import streams
from support.full_disk import room_for
from support.store_rows import replace

from db.store import Store, StoreError

from .. import reading, stores, verbs
from ..attack import HANG_SECONDS, BrokenError, Case, Promise, SkippedError

_ROOMY = 8 << 20
_BATCHES = 60


@dataclass(frozen=True)
class Disks:
    name: str = "disks"
    share: float = 1.0
    limit_seconds: float = HANG_SECONDS

    def prepare(self, shared: Path) -> None:
        stores.make(shared)

    def run(self, case: Case) -> None:
        kind = case.rng.choice(("limit", "limit", "small disk", "full stdout"))
        case.note(kind)
        if kind == "full stdout":
            return self._stdout(case)
        folder = case.folder
        if kind == "small disk":
            with _disk(case) as folder:
                return self._fill(case, folder, None)
        return self._fill(case, folder, int(case.rng.random() ** 2 * 200_000))

    def _fill(self, case: Case, folder: Path, room: int | None) -> None:
        """Writes to a store in a folder that has no room, or under a limit of bytes a file."""
        shared = stores.Shared(case.shared)
        path, before = shared.copy(folder), stores.committed(shared.store)
        out = folder / case.rng.choice(("out.json", "out.sqlite"))
        verbs.run("export", "-o", str(out), "--db", str(path), statuses=(0,))
        old = out.read_bytes()
        kind = case.rng.choice(("import", "export", "record", "list"))
        case.note(f"{kind} with room for {room} bytes")
        done: set[int] = set()
        if room is None:
            _leave(folder, case.rng.choice((0, 4, 16, 64, 128)))
        with room_for(1 << 40 if room is None else room):
            if kind == "record":
                done = self._record(shared, path)
            else:
                where = ("--db", str(path))
                words = {"export": ("export", "-o", str(out), *where), "list": ("list", *where)}
                verbs.run(*words.get(kind, verbs.importing(shared.foreign_file, path)))
        if room is None:
            _resize(folder, _ROOMY)
        after = stores.kept(path, before, f"{kind} without room")
        if lost := done - {row[12] for row in after if row[1] == "full"}:
            raise BrokenError(Promise.ROWS, "batches recorded without room", f"{sorted(lost)}")
        if kind == "export" and out.read_bytes() != old:
            verbs.run(*verbs.importing(out, case.folder / "other.sqlite"), statuses=(0,))
        verbs.run(*verbs.importing(shared.foreign_file, path), statuses=(0,))

    def _record(self, shared: stores.Shared, path: Path) -> set[int]:
        """Records batches until there is no room; the numbers of those that were stored, as their rows have them."""
        run, done = replace(stores.RUN, id="full"), set()
        try:
            store = Store.open(path)
            store.start_run(run)
            for i in range(_BATCHES):
                rows = [stores.fact(w, shared.target, stores.good(w), nbytes=i) for w in stores.WORKLOADS]
                store.record(run.id, rows)
                done.add(i)
        except StoreError:
            pass
        return done

    def _stdout(self, case: Case) -> None:
        shared = stores.Shared(case.shared)
        path = shared.copy(case.folder)
        verb = case.rng.choice((("list",), ("list", "--json"), ("export",), ("explain", shared.model), ("--help",)))
        where = () if verb == ("--help",) else ("--db", str(path))
        if not os.path.exists("/dev/full"):
            raise SkippedError("full stdout: there is no /dev/full")
        with streams.full() as stdout:
            ended = verbs.run(*verb, *where, stdout=stdout)
        if ended.status == 0:
            raise BrokenError(Promise.WORD, f"{verb[0]} to a full disk ends with status 0")
        reading.read(case, path, 1, (0,))


def _leave(folder: Path, kib: int) -> None:
    """Makes a disk so small that no more than this much is free on it."""
    found = os.statvfs(folder)
    _resize(folder, (found.f_blocks - found.f_bfree) * found.f_bsize + (kib << 10))


def _resize(folder: Path, nbytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={nbytes}", str(folder)], check=True)


@contextmanager
def _disk(case: Case) -> Iterator[Path]:
    folder = case.folder / "disk"
    folder.mkdir()
    if sys.platform != "linux":
        raise SkippedError("small disk: a tmpfs is Linux's")
    command = ["mount", "-t", "tmpfs", "-o", f"size={_ROOMY}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SkippedError("small disk: no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
