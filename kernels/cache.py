"""Files in the user's cache folder that hold compiled code: read only when they are whole, in folders of the user alone.

Each file carries a digest of its key and its content, so that chance damage is noticed before anything is run. The
digest is no signature: whoever can write in a folder of mode 0700 is the user. Whatever cannot be used is done without,
and one warning says so. Standard library only until a folder is asked for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"tinygrad-autotune 1 "  # then the digest in hexadecimal digits, a newline, and the content
_HEADER_NBYTES = len(_MAGIC) + 64 + 1
_LARGEST_NBYTES = 64 << 20  # of a file that is read at all
_TEMPORARY = ".writing-"
_DAY_SECONDS = 86400
_REMEDY = "remove it, or set XDG_CACHE_HOME to a folder of your own"

_told: set[tuple[str, str]] = set()  # (folder, kind of warning), of this process
_trimmed: set[str] = set()


class UnusableError(OSError):
    """A folder or a file is not as this module leaves it; the message says how it differs."""


def cache_folder() -> Path:
    """Whatever is in it may be deleted at any time. It may not exist yet."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("tinygrad-autotune", appauthor=False))


@dataclass(frozen=True)
class State:
    """What a folder holds. problem: why it is not used, or ""."""

    path: Path
    files: int
    nbytes: int
    problem: str


@dataclass(frozen=True)
class Folder:
    """A folder in the user's cache folder. Above `limit_nbytes`, the files that were not used for longest go first."""

    name: str
    limit_nbytes: int = 256 << 20

    @property
    def path(self) -> Path:
        return cache_folder() / self.name

    def read(self, key: str) -> bytes | None:
        """What was written for `key`; None where there is nothing, or nothing that can be trusted."""
        path = self.path
        try:
            with opened(path) as folder:
                return _read(folder, key)
        except FileNotFoundError:
            return None
        except UnusableError as e:
            _tell(path, "read", str(e))
        except OSError as e:
            _tell(path, "read", f"{e.strerror or e}")
        return None

    def write(self, key: str, content: bytes) -> None:
        """Keeps `content` for `key`, whole or not at all. After a failure, this process writes no more."""
        path = self.path
        if (str(path), "write") in _told:
            return
        try:
            make(path)
            with opened(path) as folder:
                _write(folder, _name(key), _MAGIC + _digest(key, content) + b"\n" + content)
                if str(path) not in _trimmed:
                    _trimmed.add(str(path))
                    _trim(folder, self.limit_nbytes)
        except UnusableError as e:
            _tell(path, "write", str(e))
        except OSError as e:
            _tell(path, "write", f"{e.strerror or e}")

    def state(self) -> State:
        """What is there now; makes nothing."""
        path = self.path
        try:
            with opened(path) as folder:
                sizes = [size for _, size, _ in _files(folder)]
        except FileNotFoundError:
            return State(path, 0, 0, "")
        except OSError as e:
            return State(path, 0, 0, e.strerror or str(e))
        return State(path, len(sizes), sum(sizes), "")


PROGRAMS = Folder("kernels")
"""Compiled kernels with what a launch needs to know of them."""
OBJECTS = Folder("objects")
"""What compilers made of source code."""
SIMULATED = Folder("metalsim")
"""Libraries of the simulated METAL."""


def states() -> tuple[State, ...]:
    """Of all folders."""
    return tuple(folder.state() for folder in (PROGRAMS, OBJECTS, SIMULATED))


def make(path: Path) -> None:
    """Makes a folder for the user alone, where there is nothing yet. Raises OSError."""
    with suppress(FileExistsError):  # `opened` says what it is
        os.makedirs(path, 0o700, exist_ok=True)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a folder that belongs to the user alone. Raises UnusableError for another, and OSError."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise UnusableError(f"it is no folder: {_REMEDY}") from None
    try:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid():
            raise UnusableError(f"it belongs to user {found.st_uid}, not to {os.geteuid()}: {_REMEDY}")
        if (mode := stat.S_IMODE(found.st_mode)) & 0o077:
            raise UnusableError(f"its mode {mode:o} lets others in: chmod 700 it, {_REMEDY}")
        yield folder
    finally:
        os.close(folder)


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes a file of a folder of the user alone, which is made if there is none. Who reads at the same time finds
    nothing, or all of it. Raises UnusableError, OSError."""
    make(path.parent)
    with opened(path.parent) as folder:
        _write(folder, path.name, content, mode)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(key.encode()).digest() + content).hexdigest().encode()


def _read(folder: int, key: str) -> bytes:
    name = _name(key)
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as e:
        raise UnusableError(f"{name} in it cannot be read ({e.strerror}) and is made again") from e
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size > _LARGEST_NBYTES:
            raise UnusableError(f"{name} in it is no file of this program and is made again")
        data = _all(file, found.st_size)
        content = data[_HEADER_NBYTES:]
        if data[:_HEADER_NBYTES] != _MAGIC + _digest(key, content) + b"\n":
            raise UnusableError(f"{name} in it is damaged and is made again")
        if time.time() - found.st_mtime > _DAY_SECONDS:
            with suppress(OSError):
                os.utime(file)  # it is in use
        return content
    finally:
        os.close(file)


def _all(file: int, nbytes: int) -> bytes:
    parts = []
    while nbytes > 0 and (part := os.read(file, nbytes)):
        parts.append(part)
        nbytes -= len(part)
    return b"".join(parts)


def _write(folder: int, name: str, content: bytes, mode: int = 0o600) -> None:
    temporary = f"{_TEMPORARY}{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"
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


def _files(folder: int) -> Iterator[tuple[float, int, str]]:
    """(seconds of its last use, size in bytes, name) of each file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # another process deletes too
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield found.st_mtime, found.st_size, entry.name


def _trim(folder: int, limit_nbytes: int) -> None:
    """Deletes what a killed process left half written, and above the limit the oldest down to three quarters of it."""
    files, an_hour_ago = sorted(_files(folder)), time.time() - 3600
    total = sum(size for _, size, _ in files)
    enough = limit_nbytes * 3 // 4 if total > limit_nbytes else total
    for used, size, name in files:
        abandoned = name.startswith(_TEMPORARY) and used < an_hour_ago
        if abandoned or total > enough:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
            total -= size


def _tell(path: Path, kind: str, why: str) -> None:
    """Warns once a process of each folder and kind."""
    if (str(path), kind) not in _told:
        _told.add((str(path), kind))
        what = "not used" if kind == "read" else "not written"
        warnings.warn(f"the cache of compiled kernels {path} is {what}: {why}", stacklevel=4)
