"""Whether a file is mounted by itself: it and its folder are then of two mounts. Linux; elsewhere nothing tells."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable

_HERE = -100  # AT_FDCWD
_MOUNT_ROOT = 0x2000  # STATX_ATTR_MOUNT_ROOT, of Linux 5.8
_Statx = ctypes.c_uint64 * 32  # struct statx
_ATTRIBUTES, _KNOWN = 1, 7  # in it: attributes, and which of them the system knows


def mounted_by_itself(path: str) -> bool:
    """False where the system does not tell."""
    told = _asked_statx(path)
    return _mount(path) != _mount(os.path.dirname(path)) if told is None else told


def _asked_statx(path: str) -> bool | None:
    """By one call, a third of what reading /proc takes; None where there is none, or it does not know."""
    if (statx := _statx()) is None:
        return None
    found = _Statx()
    if statx(_HERE, os.fsencode(path), 0, 0, found):
        return None
    return bool(found[_ATTRIBUTES] & _MOUNT_ROOT) if found[_KNOWN] & _MOUNT_ROOT else None


@functools.cache
def _statx() -> Callable[..., int] | None:
    found = getattr(ctypes.CDLL(None), "statx", None)
    if found is not None:
        found.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, _Statx]
    return found


def _mount(path: str) -> bytes | None:
    """The id of the mount that a path is on; None where the system does not tell."""
    if not hasattr(os, "O_PATH"):
        return None
    handle = os.open(path, os.O_PATH)  # closing such a handle drops no locks
    try:
        told = os.open(f"/proc/self/fdinfo/{handle}", os.O_RDONLY)
        try:
            return os.read(told, 4096).partition(b"mnt_id:")[2].partition(b"\n")[0]
        finally:
            os.close(told)
    except OSError:
        return None
    finally:
        os.close(handle)
