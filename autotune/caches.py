"""Whether the places that this program writes to can be written: tried out. Only empty folders of our cache stay."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from autotune.tinygrad_api.disk_cache import database
from db.errors import StoreError
from db.sqlite_files import file_state, reason
from kernels.cache import cache_folder, states
from kernels.private_files import REMEDY

_NBYTES = 1 << 16  # what must fit


@dataclass(frozen=True)
class Cache:
    """A cache on disk. problem: why it cannot be used, or "", and then `remedy` is "" too."""

    name: str
    place: str
    problem: str = ""
    remedy: str = ""


def caches() -> tuple[Cache, ...]:
    """Ours and tinygrad's."""
    return _ours(), _tinygrads()


def left_over() -> tuple[Path, ...]:
    """Folders that earlier versions kept compiled code in. Nothing reads them any more."""
    ours = cache_folder()
    return tuple(folder for folder in (ours / "programs", ours.parent / "tinygrad" / "metalsim") if folder.is_dir())


def why_unwritable(path: Path) -> str:
    """Why a file cannot be written, or made where there is none; "" if it can."""
    try:
        if _is_there(path):
            file_state(str(path))
            if not os.access(path, os.W_OK):
                return "it cannot be written"
        _write_in(path.parent)
    except StoreError as e:
        return str(e).removeprefix(f"store {path}: ")
    except (OSError, UnicodeError) as e:
        return f"{path.parent}: {e.strerror if isinstance(e, OSError) else e}"
    return ""


def _is_there(path: Path) -> bool:
    """Whether there is anything of that name. Raises OSError for a name that nothing can have."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _ours() -> Cache:
    folder, name = cache_folder(), "compiled kernels"
    try:
        _write_in(folder)
    except (OSError, UnicodeError) as e:
        why = e.strerror or str(e) if isinstance(e, OSError) else str(e)
        return Cache(name, str(folder), why, "make room there, or set XDG_CACHE_HOME to a folder that can be written")
    unusable = next((state for state in states() if state.problem), None)
    return Cache(name, str(unusable.path), unusable.problem, REMEDY) if unusable else Cache(name, str(folder))


def _tinygrads() -> Cache:
    path, name = database(), "tinygrad's"
    if path is None:
        return Cache(name, "off (CACHELEVEL=0)")
    problem = why_unwritable(path) or _no_database(path)
    return Cache(name, str(path), problem, "remove it, or set CACHEDB to another file" if problem else "")


def _write_in(folder: Path) -> None:
    """Writes a file without a name in a folder, or in the one that it would be made in. Raises OSError."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_NBYTES))
        file.flush()
        os.fsync(file.fileno())


def _no_database(path: Path) -> str:
    if not path.exists():
        return ""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=0.2)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as e:
        return "" if e.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY else str(e)  # in use
    except sqlite3.Error as e:
        return reason(e)
    return ""
