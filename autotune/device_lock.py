"""One command of a user at a time measures on a device: a file that is locked while it does."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from db.errors import file_errors
from kernels import backends, private_files

POLL_SECONDS = 0.2
_LONGEST = 160  # of a name before its digest: a file system takes 255 bytes, a variable may have any number
_REMEDY = "set XDG_RUNTIME_DIR to a folder of your own"


def lock_name(device: str, environ: Mapping[str, str] = os.environ) -> str:
    """The name of what is measured on: the card, where one can be reached as several devices or a device may be one of
    several cards; else the device without its renderer."""
    row = backends.find(device)
    card, named = row.card(environ), row.device or device
    name = re.sub(r"[^\w-]", "-", card if card.startswith("GPU-") else f"{named}-{card}" if card else named)
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


@contextmanager
def alone(device: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the device. `waiting` is called now and then while another process of this user has it.

    Those that wait get it in turn: who waits holds a second lock, which the next has to take first. Raises FileError
    where there is no folder for it that can be written, is the user's alone, and has locks.
    """
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    folder = (runtime if runtime.is_dir() else Path(tempfile.gettempdir())) / f"tinygrad-autotune-{os.getuid()}"
    with file_errors(folder):
        private_files.make(folder)
        with private_files.opened(folder, _REMEDY):  # in a folder of another's making, the device might never be free
            pass
    name = folder / lock_name(device)
    with _locked(Path(f"{name}.next"), waiting) as turn, _locked(Path(f"{name}.lock"), waiting):
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[int]:
    """Ends with the process, however that ends; children do not inherit it."""
    with file_errors(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        while not _try(path, file):
            waiting()
            time.sleep(POLL_SECONDS)
        yield file
    finally:
        os.close(file)


def _try(path: Path, file: int) -> bool:
    with file_errors(path):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
