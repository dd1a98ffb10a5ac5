"""Everything that only reads a store."""

from __future__ import annotations

from pathlib import Path

import autotune.doctor
import autotune.explain
import autotune.jsonable
import autotune.report.compare
import autotune.report.explain
import autotune.report.store
import autotune.transfer  # noqa: F401 - what the verbs import when they run: once here, not in each child
from db import codec

from . import verbs
from .attack import Case
from .stores import WORKLOADS, Shared, make, resolved

STORE_VERBS = (
    ("list",), ("list", "--json"), ("list", "--all-targets"), ("list", "--format", "Q8_0"), ("list", "--target", "CPU"),
    ("show", "DIGEST"), ("show", "DIGEST", "--json"), ("export",), ("export", "-o", "out.json"),
    ("export", "-o", "out.sqlite"), ("export", "--op", "linear"), ("explain", "MODEL"), ("explain", "MODEL", "--json"),
    ("list", "--runs"), ("list", "MODEL"), ("compare", "STORE", "ABROAD"), ("compare", "ABROAD", "STORE", "--json"),
)  # fmt: skip


def warm(root: Path) -> None:
    """Does once in this process what each of its children would: opens the device, imports, builds kernels."""
    make(root / "warm")
    shared = Shared(root / "warm")
    resolved(shared.store, shared.target, "warm")
    for verb in (("list", "--json"), ("explain", shared.model)):
        verbs.run(*verb, "--db", str(shared.store), statuses=(0,))


def read(case: Case, path: Path, count: int = 2, statuses: tuple[int, ...] = verbs.STATUSES) -> None:
    """Runs some of the verbs that read a store, and now and then `doctor`."""
    shared = Shared(case.shared)
    digest = codec.workload_digest(case.rng.choice(WORKLOADS))
    chosen = case.rng.sample(STORE_VERBS, count)
    if case.rng.random() < 0.003:
        chosen.append(("doctor",))
    for verb in chosen:
        words = {"DIGEST": digest[: case.rng.choice((8, 64))], "MODEL": shared.model, "STORE": str(path)}
        words["ABROAD"] = str(shared.foreign_file)
        arguments = [words.get(word, word) for word in verb]
        case.note(verbs.shown(tuple(verb)))
        verbs.run(*arguments, "--db", str(path), statuses=statuses)
