"""The command line in a process of its own, as a user has it: it can be interrupted, killed, and leave children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from support.interrupts import sigint

ROOT = Path(__file__).parents[2]
AUTOTUNE = (sys.executable, "-m", "autotune")


def environment(db: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "AUTOTUNE_DB": str(db), "XDG_RUNTIME_DIR": str(db.parent), **more}


def autotune(*arguments: str, db: Path, status: int = 0) -> str:
    """Runs to the end; stdout. AssertionError with stderr if it ends in another status."""
    done = subprocess.run(
        [*AUTOTUNE, *arguments], env=environment(db), capture_output=True, text=True, timeout=300, cwd=db.parent
    )
    assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def start(*arguments: str, db: Path, interrupt: signal.Handlers = signal.SIG_DFL) -> subprocess.Popen[str]:
    """`interrupt`: what SIGINT does to it, SIG_IGN as in a script's background."""
    with sigint(interrupt):
        return subprocess.Popen(
            [*AUTOTUNE, *arguments],
            env=environment(db),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=db.parent,
        )


def events(text: str) -> list[dict[str, Any]]:
    """What a sweep with --json printed."""
    return [json.loads(line) for line in text.splitlines()]


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def left_running(processes: Sequence[psutil.Process], seconds: float = 10.0) -> list[psutil.Process]:
    """Those that still run `seconds` later."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
