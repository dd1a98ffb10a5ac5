"""tinygrad's caches on disk, made safe in this process and in the compile workers that it starts.

tinygrad 0.14 keeps what its compilers made in one SQLite file, cache.db: nothing notices a flipped bit in it, a device
does not open where it cannot be written, and a process that finds it locked waits for a minute. What compilers make
goes to files of `kernels.cache` instead. Only results of a BEAM search, which are pickled, stay in cache.db: it is not
used where others can write it, and a failure of it is a warning.
"""

from __future__ import annotations

import functools
import os
import pickle
import sqlite3
import stat
import warnings
from importlib.metadata import version
from typing import Any

from tinygrad import device, helpers
from tinygrad.codegen.opt import search
from tinygrad.engine import worker

from kernels.cache import OBJECTS, CacheWarning
from kernels.tinygrad import slices, vector_clang
from kernels.tinygrad.facts import processor

BUSY_SECONDS = 5
# what a damaged pickle raises; the last two where flipped bits made a size too large
_DAMAGED = (
    *(pickle.UnpicklingError, EOFError, LookupError, ValueError, AttributeError, ImportError, TypeError),
    *(MemoryError, OverflowError),
)
_init_worker = worker._init_worker
_gave_up = False


def patch_tinygrad() -> None:
    """To be called before a device is opened or a kernel compiled. Idempotent."""
    device.diskcache_get, device.diskcache_put = _compiled, _keep_compiled
    search.diskcache_get, search.diskcache_put = _found, _keep_found
    worker._init_worker = start_worker


def start_worker() -> None:
    """What a compile worker of tinygrad begins with. The process that started it warns of the same."""
    warnings.simplefilter("ignore", CacheWarning)
    _init_worker()
    patch_tinygrad()
    slices.patch_tinygrad()
    vector_clang.patch_tinygrad()


@functools.cache
def tinygrad_version() -> str:
    """As installed; its metadata takes half a millisecond to read."""
    return version("tinygrad")


def made_for(compiler: str) -> str:
    """`compiler`, and this machine's processor where it compiles for that: the cache folder may be shared by
    machines whose processors differ."""
    return f"{compiler} {_processor()}" if "native" in compiler else compiler


@functools.cache
def _processor() -> str:
    return processor()


def _compiled(compiler: str, source: str) -> bytes | None:
    return OBJECTS.read(_key(compiler, source)) if helpers.CACHELEVEL >= 1 else None


def _keep_compiled(compiler: str, source: str, code: bytes) -> bytes:
    if helpers.CACHELEVEL >= 1:
        OBJECTS.write(_key(compiler, source), code)
    return code


def _key(compiler: str, source: str) -> str:
    return f"{tinygrad_version()} {made_for(compiler)} {source}"


def _found(table: str, key: Any) -> Any:
    try:
        return helpers.diskcache_get(table, key) if _usable() else None
    except (sqlite3.Error, OSError, *_DAMAGED) as e:
        _give_up(str(e))
        return None


def _keep_found(table: str, key: Any, value: Any) -> Any:
    try:
        return helpers.diskcache_put(table, key, value) if _usable() else value
    except (sqlite3.Error, OSError) as e:
        _give_up(str(e))
        return value


def _usable() -> bool:
    """Whether cache.db may be used; opens it. Raises OSError, sqlite3.Error."""
    if _gave_up or helpers.CACHELEVEL < 1:
        return False
    if helpers._db_connection is None:
        folder = os.path.dirname(helpers.CACHEDB)
        os.makedirs(folder, 0o700, exist_ok=True)  # with a umask of 002 the next lines would refuse our own folder
        for path in (folder, *(f"{helpers.CACHEDB}{suffix}" for suffix in ("", "-wal", "-shm"))):
            if os.path.exists(path) and (problem := _shared(path)):
                _give_up(f"{path} {problem}")
                return False
        connection = sqlite3.connect(helpers.CACHEDB, timeout=BUSY_SECONDS, isolation_level="IMMEDIATE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        helpers._db_connection = connection
    return True


def _shared(path: str) -> str:
    """Why somebody else may have written a file or a folder, or ""."""
    found = os.stat(path)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return "is neither file nor folder"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}, not to {os.geteuid()}"
    mode = stat.S_IMODE(found.st_mode)
    return f"can be written by others (mode {mode:o}): chmod go-w" if mode & 0o022 else ""


def _give_up(why: str) -> None:
    global _gave_up
    _gave_up = True
    warnings.warn(f"tinygrad's cache {helpers.CACHEDB} is not used for BEAM: {why}", CacheWarning, stacklevel=3)
