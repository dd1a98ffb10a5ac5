"""Files in folders that belong to the user alone, written whole and read without being led elsewhere. Standard library
only."""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from db.errors import AutotuneError

LARGEST_NBYTES = 64 << 20  # of a file that is read at all
TEMPORARY = ".writing-"  # how the name of a file begins while it is written
REMEDY = "set XDG_CACHE_HOME to a folder of your own"
_DAY_SECONDS = 86400


class UnusableError(AutotuneError, OSError):
    """A folder is not as this module makes it; the message says how it differs."""


class DamagedError(UnusableError):
    """A file is not as this module writes it; the message says how it differs."""


def make(path: Path) -> None:
    """Makes a folder for the user alone, where there is nothing yet. Raises OSError."""
    with suppress(FileExistsError, NotADirectoryError):  # `opened` says what there is
        os.makedirs(path, 0o700, exist_ok=True)


@contextmanager
def opened(path: Path, remedy: str = REMEDY) -> Iterator[int]:
    """A descriptor of a folder that belongs to the user alone. Raises UnusableError for another, and OSError."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise UnusableError(f"it or what it is in is no folder: remove that, or {remedy}") from None
    try:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid():
            raise UnusableError(f"it belongs to user {found.st_uid}, not to {os.geteuid()}: remove it, or {remedy}")
        if (mode := stat.S_IMODE(found.st_mode)) & 0o077:
            raise UnusableError(f"its mode {mode:o} lets others in: chmod 700 it, or {remedy}")
        yield folder
    finally:
        os.close(folder)


def script(path: Path, text: str) -> None:
    """Makes an executable file with `text` in a folder of the user alone, if it is not there as it must be. Raises
    UnusableError, OSError."""
    make(path.parent)
    with opened(path.parent) as folder:
        try:
            there = content(folder, path.name) == text.encode() and os.access(path, os.X_OK)
        except (FileNotFoundError, DamagedError):
            there = False
        if not there:
            write(folder, path.name, text.encode(), 0o700)


def content(folder: int, name: str) -> bytes:
    """Of a plain file of the user's; that it is in use is noted once a day."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as e:
        raise DamagedError(f"{name} cannot be read ({e.strerror})") from e
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size > LARGEST_NBYTES:
            raise DamagedError(f"{name} is no file that this program wrote")
        if time.time() - found.st_mtime > _DAY_SECONDS:
            with suppress(OSError):
                os.utime(file)
        return _all(file, found.st_size)
    finally:
        os.close(file)


def _all(file: int, nbytes: int) -> bytes:
    parts = []
    while nbytes > 0 and (part := os.read(file, nbytes)):
        parts.append(part)
        nbytes -= len(part)
    return b"".join(parts)


def write(folder: int, name: str, content: bytes, mode: int = 0o600) -> None:
    temporary = f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=folder)
    try:
        with open(file, "wb") as writer:
            writer.write(content)
        try:
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=folder)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def files(folder: int) -> Iterator[tuple[float, int, str]]:
    """(seconds of its last use, size in bytes, name) of each file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # another process deletes too
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield found.st_mtime, found.st_size, entry.name
