"""The store that cases start from, what was found wrong in it, and whether it still keeps what it promised.

Of every workload one schedule is `bad`: accepted once, and then found wrong on this machine.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import warnings
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from support import gguf_files as files
from support.cpu_device import cpu
from support.kernel_runs import device, run

from db import codec
from db.engine import seal
from db.exchange import export_payload
from db.lookup import Lookup
from db.records import Measurement, Opt, Outcome, Run, Schedule, Stage, Target, Workload
from db.store import Store
from kernels import devices
from kernels.ops.registry import kernel_digest
from kernels.serve import defaults
from kernels.serve.server import Server

from .attack import BrokenError, Promise

WORKLOADS = (
    Workload("linear", "Q8_0", 64, 64),
    Workload("argmax", "F32", 96, 96),
    Workload("linear", "Q4_0", 32, 64),
    Workload("rmsnorm", "F32", 64, 64, extra=(("eps", 1e-6),)),
)
BACKEND = "CPU"
RUN = Run("here", "autotune sweep model.gguf", 4, 20.0, (("tinygrad", "0.14.0"),))
WRONG = {"stage": Stage.VERIFY, "outcome": Outcome.WRONG_RESULT, "samples": (), "error": 0.5, "reason": "wrong"}
SPARE = "run_id = 'here' AND outcome = 'wrong_result'"
"""A condition on rows of measurements: those that say what is bad."""
_FACTS = """SELECT m.id, m.run_id, w.digest, t.digest, s.digest, w.json, s.json, m.kernel_digest, m.stage, m.outcome,
    m.reason, m.samples, m.nbytes, m.error, m.tolerance, m.clock, m.simulated, m.created_at
    FROM measurements m LEFT JOIN workloads w ON w.id = m.workload_id LEFT JOIN targets t ON t.id = m.target_id
    LEFT JOIN schedules s ON s.id = m.schedule_id"""


def good(w: Workload) -> Schedule:
    return defaults.defaults(w, BACKEND)[0] if defaults.defaults(w, BACKEND) else defaults.untuned(w)


def bad(w: Workload) -> Schedule:
    """One that builds, and that no default is."""
    plain = defaults.untuned(w)
    others = {plain, *defaults.defaults(w, BACKEND)}
    return next(s for s in (replace(plain, opts=()), replace(plain, opts=(Opt("NOLOCALS"),))) if s not in others)


def near(w: Workload) -> Workload:
    return replace(w, n=w.n + 8, k=w.k + 8 if w.n == w.k and w.format == "F32" else w.k)


def fact(w: Workload, target: Target, schedule: Schedule, **changes: object) -> Measurement:
    final = Measurement(w, target, schedule, kernel_digest(w), Stage.FINAL, Outcome.OK, (2e-5, 1e-5), 999, 1e-7, 1e-5)
    return replace(final, **{"clock": "event", **changes})  # type: ignore[arg-type]


def facts(target: Target) -> list[list[Measurement]]:
    """In the order in which they were found."""
    found = []
    for i, w in enumerate(WORKLOADS):
        fine = [fact(w, target, good(w)), fact(w, target, defaults.untuned(w), stage=Stage.BASELINE)]
        found.append(fine if i % 2 else fine[1:])
        found.append([fact(w, target, bad(w)), fact(near(w), target, good(w))])
        found.append([fact(w, target, bad(w), **WRONG)])
        found.append([fact(w, target, good(w), simulated=True), fact(w, target, good(w), kernel_digest="ab" * 32)])
    return found


@dataclass(frozen=True)
class Shared:
    """What `make` left, beside the folders of the attacks that share it. of: one of these."""

    of: Path

    @property
    def folder(self) -> Path:
        return self.of.parent / "stores"

    @property
    def model(self) -> str:
        return str(self.folder / "model.gguf")

    @property
    def store(self) -> Path:
        return self.folder / "store.sqlite"

    @cached_property
    def target(self) -> Target:
        return codec.target_from_json(json.loads((self.folder / "target.json").read_text()))

    @cached_property
    def foreign(self) -> dict[str, object]:
        """An export of another machine of this kind, for which the bad schedules are the best."""
        return dict(json.loads(self.foreign_file.read_text()))

    @property
    def foreign_file(self) -> Path:
        return self.folder / "foreign.json"

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copy(self.store, folder / "store.sqlite"))


def make(of: Path) -> None:
    """Makes what an attack finds in `Shared`, if no other has. Opens the device: rows are of its target."""
    shared = Shared(of)
    if (folder := shared.folder).exists():
        return
    folder.mkdir()
    choice = cpu()
    devices.activate(choice)
    target = devices.describe_target(choice.device)
    tensors = [(f"{w.format}.weight", (w.n, w.k), w.format) for w in WORKLOADS if w.op == "linear"]
    files.write_sparse_gguf(folder / "model.gguf", {"general.architecture": "small"}, tensors)
    (folder / "target.json").write_text(json.dumps(codec.target_to_json(target)))
    _fill(shared.store, RUN, facts(target))
    abroad = folder / "abroad.sqlite"
    rows = [[fact(w, target, bad(w), samples=(1e-6,)), fact(near(w), target, good(w))] for w in WORKLOADS]
    _fill(abroad, replace(RUN, id="abroad"), rows)
    (folder / "foreign.json").write_text(json.dumps(export_payload(Store.open(abroad))))
    seal(Store.open(abroad).engine)


def _fill(path: Path, run: Run, batches: Iterable[Sequence[Measurement]]) -> None:
    store = Store.open(path)
    store.start_run(run)
    for batch in batches:
        store.record(run.id, batch)
    seal(store.engine)


def committed(path: Path) -> frozenset[tuple[object, ...]]:
    """Every measurement with what it is of."""
    with closing(sqlite3.connect(path, timeout=30)) as db:
        return frozenset(db.execute(_FACTS))


def counted(path: Path) -> int:
    """How many measurements a store has, which may be in the making."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
            (count,) = db.execute("SELECT count(*) FROM measurements").fetchone()
            return int(count)
    except sqlite3.OperationalError:
        return 0


def kept(path: Path, before: frozenset[tuple[object, ...]], what: str) -> frozenset[tuple[object, ...]]:
    """The rows that are there. Raises BrokenError unless those of before are among them, in a sound file."""
    try:
        with closing(sqlite3.connect(path, timeout=30)) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'measurements'").fetchone() and not before:
                return before
            (sound,) = db.execute("PRAGMA integrity_check").fetchone()
        after = committed(path)
    except sqlite3.Error as error:
        raise BrokenError(Promise.ROWS, f"{what}: the store cannot be read", str(error)) from error
    if sound != "ok":
        raise BrokenError(Promise.ROWS, f"{what}: the store is damaged", str(sound))
    if stale := Store.read(path).stale():
        raise BrokenError(
            Promise.SCHEDULE, f"{what}: lookups find something else than was measured", f"{stale} kernels"
        )
    if lost := before - after:
        raise BrokenError(
            Promise.ROWS, what, f"{len(lost)} of {len(before)} rows, such as {min(lost, key=repr)!r:.500}"
        )
    return after


def resolved(path: Path, target: Target, what: str, strict: bool = True) -> None:
    """Asks what serves each workload. Raises BrokenError where that was found wrong here, if `strict`."""
    server = Server(Lookup(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for w in WORKLOADS:
            found = server.resolve(w, target)
            if strict and found.schedule == bad(w):
                raise BrokenError(Promise.SCHEDULE, f"{what}: by step {found.step}", f"{w}: {found.schedule}")


def ours_first(path: Path, target: Target, what: str) -> None:
    """Raises BrokenError where something else is served than what was accepted here."""
    server = Server(Lookup(path))
    for w in WORKLOADS[1::2]:
        found = server.resolve(w, target)
        if found.schedule != good(w) or found.step != "user":
            raise BrokenError(Promise.SCHEDULE, f"{what}: not what was accepted here", f"{w}: {found}")


def computed(path: Path, w: Workload, what: str) -> None:
    """Raises BrokenError where the kernel that is served for a workload computes something else than its reference."""
    server = Server(Lookup(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernel = server.serve(w, device().name)
        verdict = run(w, kernel.schedule)
    if verdict.outcome is not Outcome.OK:
        raise BrokenError(Promise.SCHEDULE, f"{what}: computes {verdict.outcome}", f"{w}: {kernel}: {verdict}")
