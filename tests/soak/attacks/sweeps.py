"""Sweeps and verifications as a user starts them, of which a process is hit: the command, its runner, a compiler. And
sweeps that are killed again and again."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from support import gguf_files as files
from support.command import AUTOTUNE, environment, left_running
from support.interrupts import sigint

from .. import processes, stores, verbs
from ..attack import HANG_SECONDS, BrokenError, Case, Promise, inject

SWEEP = ("--beam", "1", "--workers", "1", "--json")
_CHILDREN = {"runner": "runner_child", "compiler": "compiler_child"}
_GOES_ON_SECONDS = 8.0


@dataclass
class Started:
    """A command in a process of its own; `rows` are those that the store has been seen to hold."""

    process: subprocess.Popen[bytes]
    err: Path
    rows: set[tuple[object, ...]] = field(default_factory=set)

    def victim(self, kind: str) -> int | None:
        """The process of a kind, once there is one; None if the command ends without."""
        deadline = time.monotonic() + HANG_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            if kind == "command":
                return self.process.pid
            for child in self.children():
                try:
                    if any(_CHILDREN[kind] in word for word in child.cmdline()):
                        return child.pid
                except psutil.Error:
                    continue
            time.sleep(0.02)
        return None

    def children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


@dataclass(frozen=True)
class Sweeps:
    name: str = "sweeps"
    share: float = 3.0
    limit_seconds: float = 6 * HANG_SECONDS

    def prepare(self, shared: Path) -> None:
        stores.make(shared)

    def run(self, case: Case) -> None:
        shared, rng = stores.Shared(case.shared), case.rng
        path, before = shared.copy(case.folder), stores.committed(shared.store)
        kind = rng.choice(("sweep", "sweep", "sweep", "verify"))
        sweep = ("sweep", shared.model, "--budget", "0.5", *SWEEP)
        arguments = (*(sweep if kind == "sweep" else ("verify", "--defaults", "--json")), "--db", str(path))
        whom = rng.choice(("command", "command", "runner", "compiler"))
        number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        if whom != "command":
            number = signal.SIGKILL
        seconds = rng.random() * 6
        case.note(f"{kind}: {number.name} to its {whom} after {seconds:.2f} s")
        with _started(arguments, case.folder, path) as started:
            self._hit(case, started, (whom, number, seconds), kind)
        stores.kept(path, before | frozenset(started.rows), f"{kind} whose {whom} was hit")
        verbs.run("list", "--db", str(path), statuses=(0,))
        stores.resolved(path, shared.target, f"after a {kind}")

    def _hit(self, case: Case, started: Started, hit: tuple[str, signal.Signals, float], verb: str) -> None:
        whom, number, seconds = hit
        victim = started.victim(whom)
        time.sleep(seconds)
        children = started.children()
        if victim is not None:
            try:
                os.kill(victim, number)
            except ProcessLookupError:
                case.note("gone before it was hit")
        statuses: tuple[int, ...] = (0, 1, *processes.ENDED[number])
        if whom != "command":
            statuses = (0, 1, 2, *processes.ENDED[signal.SIGINT])
            self._goes_on(case, started)
        begun = time.monotonic()
        try:
            status = started.process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            started.process.kill()
            raise BrokenError(Promise.HANG, f"{verb} whose {whom} got {number.name}", "") from None
        case.note(f"ended {time.monotonic() - begun:.1f} s later with status {status}")
        said = started.err.read_text(errors="replace")
        case.note(said.strip().rpartition("\n")[2])
        if left := left_running(children):
            names = [" ".join(p.cmdline())[:200] for p in left]
            raise BrokenError(Promise.HANG, f"left running by {verb} after {number.name}", "\n".join(names))
        verbs.checked((verb,), status, said, statuses)

    def _goes_on(self, case: Case, started: Started) -> None:
        """Lets a command whose child was killed go on for a while, and then asks it to end."""
        try:
            started.process.wait(_GOES_ON_SECONDS)
        except subprocess.TimeoutExpired:
            case.note(f"SIGINT {_GOES_ON_SECONDS} s later")
            started.process.send_signal(signal.SIGINT)


@dataclass(frozen=True)
class Resumed:
    """Sweeps of one store, each killed when it has stored some rows or after a while, and one that may end."""

    name: str = "resumed"
    share: float = 3.0
    limit_seconds: float = 12 * HANG_SECONDS

    def prepare(self, shared: Path) -> None:
        tensors = [("blk.0.attn_q.weight", (32, 64), "Q4_0")]
        files.write_sparse_gguf(shared / "model.gguf", {"general.architecture": "small"}, tensors)

    def run(self, case: Case) -> None:
        rng, path = case.rng, case.folder / "store.sqlite"
        arguments = ("sweep", str(case.shared / "model.gguf"), "--budget", rng.choice(("0.1", "0.5", "2")), *SWEEP)
        before: frozenset[tuple[object, ...]] = frozenset()
        for _ in range(rng.randint(1, 4)):
            rows, seconds = rng.randint(0, 4), rng.random() * rng.choice((0.2, 2, 6))
            with _started((*arguments, "--db", str(path)), case.folder, path) as started:
                self._kill(started, path, len(before) + rows, seconds)
            after = stores.kept(path, before, "sweep that was killed") if path.exists() else before
            case.note(f"killed {seconds:.2f} s after {rows} rows: {len(before)} -> {len(after)} rows")
            before = after
        with _started((*arguments, "--db", str(path)), case.folder, path) as started:
            try:
                status = started.process.wait(4 * HANG_SECONDS)
            except subprocess.TimeoutExpired:
                raise BrokenError(Promise.HANG, "a sweep after others that were killed", "") from None
        verbs.checked(arguments, status, started.err.read_text(errors="replace"), (0, 1))
        self._judge(stores.kept(path, before, "sweep after others that were killed"), status)
        verbs.run("list", "--db", str(path), statuses=(0,))

    def _kill(self, started: Started, path: Path, rows: int, seconds: float) -> None:
        """Kills a sweep `seconds` after its store has that many rows."""
        deadline = time.monotonic() + HANG_SECONDS
        while started.process.poll() is None and time.monotonic() < deadline:
            if rows == 0 or stores.counted(path) >= rows:
                break
            time.sleep(0.02)
        time.sleep(seconds)
        children = started.children()
        started.process.kill()
        inject()
        started.process.wait()
        if left := left_running(children):
            names = [" ".join(p.cmdline())[:200] for p in left]
            raise BrokenError(Promise.HANG, "left running by a sweep that was killed", "\n".join(names))

    def _judge(self, rows: frozenset[tuple[object, ...]], status: int) -> None:
        """No candidate was timed twice, and a sweep only failed if two others did not survive its candidates."""
        probes = Counter((row[2], row[4]) for row in rows if row[8] == "probe")
        if twice := [probe for probe, count in probes.items() if count > 1]:
            raise BrokenError(Promise.WORD, "a resumed sweep tries again what was stored", f"{len(twice)}: {twice[0]}")
        blamed = [row for row in rows if "sweeps were killed" in str(row[10])]
        if status == 1 and not blamed:
            raise BrokenError(Promise.WORD, "a resumed sweep fails", f"{len(rows)} rows")
        if status == 0 and not any(row[8] == "final" for row in rows):
            raise BrokenError(Promise.ROWS, "a resumed sweep ends without a result", f"{len(rows)} rows")


@contextmanager
def _started(arguments: tuple[str, ...], folder: Path, path: Path) -> Iterator[Started]:
    err = folder / "err"
    with sigint(), err.open("wb") as stderr:
        process = subprocess.Popen(
            [*AUTOTUNE, *arguments],
            env=environment(path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=folder,
        )
    started, done = Started(process, err), threading.Event()
    reader = threading.Thread(target=_follow, args=(started, path, done), daemon=True)
    reader.start()
    try:
        yield started
    finally:
        done.set()
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def _follow(started: Started, path: Path, done: threading.Event) -> None:
    """Remembers what the store holds once the command has said so."""
    out = started.process.stdout
    assert out is not None
    while not done.is_set():
        ready, _, _ = select.select([out], [], [], 0.1)
        if not ready:
            continue
        if not (line := out.readline()):
            return
        if json.loads(line).get("event") in ("workload", "checked"):
            started.rows |= stores.committed(path)
