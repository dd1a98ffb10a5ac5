"""Everything that only reads a store."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from . import verbs
from .attack import Case
from .stores import WORKLOADS, Shared

from db import codec

STORE_VERBS = (
    ("list",), ("list", "--json"), ("list", "--all-targets"), ("list", "--format", "Q8_0"), ("list", "--target", "CPU"),
    ("show", "DIGEST"), ("show", "DIGEST", "--json"), ("export",), ("export", "-o", "out.json"),
    ("export", "-o", "out.sqlite"), ("export", "--op", "linear"), ("explain", "MODEL"), ("explain", "MODEL", "--json"),
)  # fmt: skip


def read(case: Case, path: Path, count: int = 2, statuses: tuple[int, ...] = verbs.STATUSES) -> None:
    """Runs some of the verbs that read a store, and now and then `doctor`."""
    shared = Shared(case.shared)
    digest = codec.workload_digest(case.rng.choice(WORKLOADS))
    chosen = case.rng.sample(STORE_VERBS, count)
    if case.rng.random() < 0.02:
        chosen.append(("doctor",))
    for verb in chosen:
        words = {"DIGEST": digest[: case.rng.choice((8, 64))], "MODEL": shared.model}
        arguments = [words.get(word, word) for word in verb]
        case.did.append(verbs.shown(tuple(verb)))
        verbs.run(*arguments, "--db", str(path), statuses=statuses)


def is_readable(path: Path) -> bool:
    """Whether SQLite finds a file of its own in order."""
    try:
        with closing(sqlite3.connect(f"file:{os.path.abspath(path)}?mode=ro", uri=True)) as db:
            return db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    except sqlite3.Error:
        return False
