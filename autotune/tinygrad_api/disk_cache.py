"""Where tinygrad keeps what it compiled and searched: one SQLite file, which its devices do not open without."""

from __future__ import annotations

from pathlib import Path

from tinygrad import helpers


def database() -> Path | None:
    """None where CACHELEVEL=0 turns it off."""
    return Path(helpers.CACHEDB) if helpers.CACHELEVEL >= 1 else None
