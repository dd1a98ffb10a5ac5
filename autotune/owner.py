"""A process as others name it in a store: its host, its id, and when it started, since ids are used again."""

from __future__ import annotations

import os
import platform

import psutil

_SAME_SECONDS = 2.0  # a process' start is reckoned from the clock, which may be set


def owner() -> str:
    """This process."""
    return f"{platform.node()} {os.getpid()} {psutil.Process().create_time():.0f}"


def ended(name: str) -> bool:
    """Whether a process is known to have ended: one of this host, which is not there any more."""
    host, *numbers = name.rsplit(" ", 2)
    if host != platform.node() or len(numbers) != 2 or not all(n.isdecimal() for n in numbers):
        return False
    pid, start = map(int, numbers)
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - start) > _SAME_SECONDS or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
