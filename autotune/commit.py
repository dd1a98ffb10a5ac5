"""Which commit of this project runs, for results that are given to others."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

COMMIT = "commit"
ROOT = Path(__file__).parents[1]


@functools.cache
def commit(root: Path = ROOT) -> str:
    """The commit that is checked out, "-dirty" if files differ from it; "" where this is no checkout or git is not
    there."""
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
