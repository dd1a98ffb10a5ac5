"""Which commit of this project runs: what a result says besides its version."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import subprocess
from pathlib import Path

COMMIT = "commit"  # of a run's versions
_ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def commit() -> str:
    """The commit of the checkout, with "-dirty" where its files differ, or the one that pip installed from a URL of
    git; "" where neither is known."""
    if (_ROOT / ".git").exists():
        command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):  # no git, or a checkout of another user
            return ""
    try:
        text = importlib.metadata.distribution("tinygrad-autotune").read_text("direct_url.json")
        return str(json.loads(text or "{}").get("vcs_info", {}).get("commit_id", ""))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""
