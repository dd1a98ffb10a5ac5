"""Runs a part of a bench in its own process, in which no other part has opened the device. Not a bench itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).parents[1]
NOTHING: Mapping[str, str] = MappingProxyType({})


def in_own_process(
    module: str, arguments: Sequence[str], timeout_seconds: float, environ: Mapping[str, str] = NOTHING
) -> dict[str, Any]:
    """The JSON object in the last line that `python -m module arguments` prints, or {"failed": reason}."""
    command, env = [sys.executable, "-m", module, *arguments], {**os.environ, **environ}
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in {timeout_seconds:.0f} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
