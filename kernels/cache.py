"""Compiled code in the user's cache folder: files that are read only when they are whole, in folders of the user alone.

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

from db.errors import AutotuneError

_MAGIC = b"tinygrad-autotune 1 "  # then the digest in hexadecimal digits, a newline, and the content
_HEADER_NBYTES = len(_MAGIC) + 64 + 1
_LARGEST_NBYTES = 64 << 20  # of a file that is read at all
_TEMPORARY = ".writing-"
_DAY_SECONDS = 86400
_REMEDY = "set XDG_CACHE_HOME to a folder of your own"

# of this process
_told: set[str] = set()  # what was warned of
_failed: set[str] = set()  # folders that could not be written
_trimmed: set[str] = set()


class CacheWarning(UserWarning):
    """Something on disk is done without."""


class UnusableError(AutotuneError, OSError):
    """A folder is not as this module makes it; the message says how it differs."""


class DamagedError(UnusableError):
    """A file is not as this module writes it; the message says how it differs."""


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
        except OSError as e:
            _tell(path, e)
            return None

    def write(self, key: str, content: bytes) -> None:
        """Keeps `content` for `key`, whole or not at all. After a failure, this process writes no more."""
        path = self.path
        if str(path) in _failed or len(content) > _LARGEST_NBYTES - _HEADER_NBYTES:
            return
        try:
            make(path)
            with opened(path) as folder:
                _write(folder, _name(key), _MAGIC + _digest(key, content) + b"\n" + content)
                if str(path) not in _trimmed:
                    _trimmed.add(str(path))
                    _trim(folder, self.limit_nbytes)
        except OSError as e:
            _failed.add(str(path))
            _tell(path, e)

    def state(self) -> State:
        """What is there now. Makes the folder, to see whether it can be."""
        path = self.path
        try:
            make(path)
            with opened(path) as folder:
                sizes = [size for _, size, _ in _files(folder)]
        except OSError as e:
            return State(path, 0, 0, _reason(e))
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
    with suppress(FileExistsError, NotADirectoryError):  # `opened` says what there is
        os.makedirs(path, 0o700, exist_ok=True)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a folder that belongs to the user alone. Raises UnusableError for another, and OSError."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise UnusableError(f"it or what it is in is no folder: remove that, or {_REMEDY}") from None
    try:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid():
            raise UnusableError(f"it belongs to user {found.st_uid}, not to {os.geteuid()}: remove it, or {_REMEDY}")
        if (mode := stat.S_IMODE(found.st_mode)) & 0o077:
            raise UnusableError(f"its mode {mode:o} lets others in: chmod 700 it, or {_REMEDY}")
        yield folder
    finally:
        os.close(folder)


def script(path: Path, text: str) -> None:
    """Makes an executable file with `text` in a folder of the user alone, if it is not there as it must be. Raises
    UnusableError, OSError."""
    make(path.parent)
    with opened(path.parent) as folder:
        try:
            there = _content(folder, path.name) == text.encode() and os.access(path, os.X_OK)
        except (FileNotFoundError, DamagedError):
            there = False
        if not there:
            _write(folder, path.name, text.encode(), 0o700)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(key.encode()).digest() + content).hexdigest().encode()


def _read(folder: int, key: str) -> bytes:
    name = _name(key)
    data = _content(folder, name)
    content = data[_HEADER_NBYTES:]
    if data[:_HEADER_NBYTES] != _MAGIC + _digest(key, content) + b"\n":
        raise DamagedError(f"{name} is damaged")
    return content


def _content(folder: int, name: str) -> bytes:
    """Of a plain file of the user's; that it is in use is noted once a day."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as e:
        raise DamagedError(f"{name} cannot be read ({e.strerror})") from e
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size > _LARGEST_NBYTES:
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


def _tell(path: Path, error: OSError) -> None:
    """Warns once a process of a folder, and once of what the system refuses in any of them."""
    what = str(path if isinstance(error, UnusableError) else path.parent)
    if what not in _told:
        _told.add(what)
        damaged = isinstance(error, DamagedError)
        said = f"{path}/{error}, and is made again" if damaged else f"{path} is not used: {_reason(error)}"
        warnings.warn(f"the cache of compiled kernels {said}", CacheWarning, stacklevel=4)


def _reason(error: OSError) -> str:
    """Why, and the remedy."""
    return str(error) if isinstance(error, UnusableError) else f"{error.strerror or error}: {_REMEDY}, or CCACHE=0"
