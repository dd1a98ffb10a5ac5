"""Compiled code in the user's cache folder: files that are read only when they are whole, in folders of the user alone.

Each file carries a digest of its key and its content, so that chance damage is noticed before anything is run. The
digest is no signature: whoever can write in a folder of mode 0700 is the user. Whatever cannot be used is done without,
and one warning says so. Standard library only until a folder is asked for.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kernels import private_files
from kernels.private_files import LARGEST_NBYTES, REMEDY, TEMPORARY, DamagedError, UnusableError

_MAGIC = b"tinygrad-autotune 1 "  # then the digest in hexadecimal digits, a newline, and the content
_HEADER_NBYTES = len(_MAGIC) + 64 + 1

# of this process
_told: set[str] = set()  # what was warned of
_failed: set[str] = set()  # folders that could not be written
_trimmed: set[str] = set()


class CacheWarning(UserWarning):
    """Something on disk is done without."""


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
            with private_files.opened(path) as folder:
                return _read(folder, key)
        except FileNotFoundError:
            return None
        except OSError as e:
            _tell(path, e)
            return None

    def write(self, key: str, content: bytes) -> None:
        """Keeps `content` for `key`, whole or not at all. After a failure, this process writes no more."""
        path = self.path
        if str(path) in _failed or len(content) > LARGEST_NBYTES - _HEADER_NBYTES:
            return
        try:
            private_files.make(path)
            with private_files.opened(path) as folder:
                private_files.write(folder, _name(key), _MAGIC + _digest(key, content) + b"\n" + content)
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
            private_files.make(path)
            with private_files.opened(path) as folder:
                sizes = [size for _, size, _ in private_files.files(folder)]
        except OSError as e:
            return State(path, 0, 0, _reason(e))
        return State(path, len(sizes), sum(sizes), "")


PROGRAMS = Folder("kernels")
"""Compiled kernels with what a launch needs to know of them."""
OBJECTS = Folder("objects")
"""What compilers made of source code."""
SIMULATED = Folder("metalsim")
"""Libraries of the simulated METAL."""
EXECUTOR = Folder("executor")
"""The library that launches on this machine's processor, as `kernels.host.library` builds it."""


def states() -> tuple[State, ...]:
    """Of all folders."""
    return tuple(folder.state() for folder in (PROGRAMS, OBJECTS, SIMULATED, EXECUTOR))


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(key.encode()).digest() + content).hexdigest().encode()


def _read(folder: int, key: str) -> bytes:
    name = _name(key)
    data = private_files.content(folder, name)
    content = data[_HEADER_NBYTES:]
    if data[:_HEADER_NBYTES] != _MAGIC + _digest(key, content) + b"\n":
        raise DamagedError(f"{name} is damaged")
    return content


def _trim(folder: int, limit_nbytes: int) -> None:
    """Deletes what a killed process left half written, and above the limit the oldest down to three quarters of it."""
    files, an_hour_ago = sorted(private_files.files(folder)), time.time() - 3600
    total = sum(size for _, size, _ in files)
    enough = limit_nbytes * 3 // 4 if total > limit_nbytes else total
    for used, size, name in files:
        abandoned = name.startswith(TEMPORARY) and used < an_hour_ago
        if abandoned or total > enough:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
            total -= size


def _tell(path: Path, error: OSError) -> None:
    """Warns once a process of a folder, and once of what is wrong with all of them."""
    what = str(path if isinstance(error, UnusableError) and path.parent.is_dir() else path.parent)
    if what not in _told:
        _told.add(what)
        damaged = isinstance(error, DamagedError)
        said = f"{path}/{error}, and is made again" if damaged else f"{path} is not used: {_reason(error)}"
        warnings.warn(f"the cache of compiled kernels {said}", CacheWarning, stacklevel=4)


def _reason(error: OSError) -> str:
    """Why, and the remedy."""
    return str(error) if isinstance(error, UnusableError) else f"{error.strerror or error}: {REMEDY}, or CCACHE=0"
