"""How many threads compute on this machine's processor. Standard library and psutil only."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from db.errors import AutotuneError

VARIABLE = "AUTOTUNE_THREADS"
MOST = 1024


class ThreadsError(AutotuneError, ValueError):
    """AUTOTUNE_THREADS is no number of threads."""


def count(environ: Mapping[str, str] = os.environ) -> int:
    """AUTOTUNE_THREADS if it is set; else the physical cores that this process may use. Raises ThreadsError."""
    asked = environ.get(VARIABLE, "")
    if not asked:
        return min(MOST, available())
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:9]) <= MOST):
        raise ThreadsError(f"{VARIABLE}={asked} is no number of threads: set it to 1 to {MOST}, or unset it")
    return int(asked)


def reason(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> str:
    """Why `count` is what it is."""
    if environ.get(VARIABLE):
        return f"{VARIABLE} asks for them"
    cores, limit = _cores(root), _limit(root)
    if limit < cores:
        return f"control groups give this process the time of {limit:g} of {cores} cores"
    return "one a physical core that this process may run on"


def available(root: Path = Path("/")) -> int:
    """The physical cores that this process may use: of those that it may run on, and of as many as its control groups
    give it time for; 1 at least. root: where /proc and /sys are."""
    return max(1, int(min(_cores(root), _limit(root))))


def _cores(root: Path) -> int:
    if not hasattr(os, "sched_getaffinity"):
        import psutil

        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    siblings = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({_text(root / siblings.format(cpu)) or str(cpu) for cpu in os.sched_getaffinity(0)})


def _limit(root: Path) -> float:
    """Processors' worth of time that the control groups of this process allow, of version 1 and 2."""
    limits = [math.inf]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += _limits(root / "sys/fs/cgroup", path, ("cpu.max",))
        elif "cpu" in controllers.split(","):
            limits += _limits(root / "sys/fs/cgroup/cpu", path, ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return min(limits)


def _limits(mount: Path, path: str, files: tuple[str, ...]) -> Iterable[float]:
    """Of a control group and those that it is in. In a container the path may be that of the host: then the root of
    what is mounted is its own."""
    parts = [part for part in path.split("/") if part]
    for depth in range(len(parts), -1, -1):
        words = " ".join(_text(mount.joinpath(*parts[:depth], name)) for name in files).split()
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            yield int(words[0]) / int(words[1])


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
