"""A chain of launches on this machine's processor as one call of C: see executor.c. Nothing of tinygrad is known here.

A call takes turns with those of other Python threads, and lets them run. A forked child has threads of its own.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from db.errors import AutotuneError
from kernels.host import threads
from kernels.host.library import library

MOST_ARGUMENTS = 64
MOST_SLICES = 4095
PIECE_SECONDS = 0.02  # after which Python may handle a signal, if no launch takes longer
_WORDS = (8, 16, 32, MOST_ARGUMENTS)  # how many argument words a function may be called with
_LAUNCH = np.dtype([("code", "u8"), ("first", "u4"), ("words", "u4"), ("slices", "i4"), ("core", "i4")])
_PLACE = np.dtype([("offset", "u8"), ("add", "u8"), ("value", "u4"), ("nbytes", "u4")])


class LaunchError(AutotuneError, ValueError):
    """A launch that the executor cannot run."""


@dataclass(frozen=True)
class Given:
    """An argument that each call gives: its value at `index`, plus `add`."""

    index: int
    add: int = 0


Argument = int | Given


@dataclass(frozen=True)
class Launch:
    """A call of a function, once for each of `slices`, in any order and by several threads at a time.

    code        the function's address; 0 copies arguments[2] bytes from arguments[1] to arguments[0]
    arguments   addresses of buffers, and integers
    slices      how many there are
    core        which argument is the number of the slice; None for none
    integers    the arguments of 4 bytes; all others have 8
    """

    code: int
    arguments: tuple[Argument, ...]
    slices: int = 1
    core: int | None = None
    integers: frozenset[int] = frozenset()


def copy(to: Argument, source: Argument, nbytes: int) -> Launch:
    return Launch(0, (to, source, nbytes))


class _Table(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("launches", "words", "places", "values", "seconds_each")),
        ("seconds", ctypes.c_double),
        ("count", ctypes.c_uint32),
        ("place_count", ctypes.c_uint32),
    )


def available() -> bool:
    """Whether there is an executor: a C compiler has built one on this machine, or can."""
    return library() is not None


class Table:
    """Launches that run one after the other.

    The memory that their addresses point to must be there, and the code, as long as it is run. seconds_each: of each
    launch, float64 [launches], summed over all calls of `run` that were timed.
    """

    def __init__(self, launches: Sequence[Launch], given: int = 0) -> None:
        """given: how many values each call gives. Raises LaunchError; or for no executor (see `available`)."""
        loaded = library()
        if loaded is None:
            raise LaunchError("there is no executor: it takes a C compiler")
        self._library = loaded
        self.seconds_each = np.zeros(len(launches))
        self._values = (ctypes.c_uint64 * given)()
        self._launches, self._words, self._places = _laid_out(launches, given)
        self._table = _Table(
            *(array.ctypes.data for array in (self._launches, self._words, self._places)),
            ctypes.addressof(self._values),
            None,
            0.0,
            len(self._launches),
            len(self._places),
        )
        self._at = ctypes.byref(self._table)

    def run(self, *values: int, timed: bool = False) -> float:
        """Runs all launches with the values that this call gives. Returns the seconds that they took in C.

        timed: whether the seconds of each are added to `seconds_each`. An exception of a signal handler may come
        between two launches; the rest is not run then.
        """
        table, execute = self._table, self._library.executor_run
        with _lock:
            if _started is None:
                _start()
            self._values[:] = list(values)
            table.seconds_each = self.seconds_each.ctypes.data if timed else None
            table.seconds = 0.0
            at = 0
            while at < table.count:
                at = execute(self._at, at, PIECE_SECONDS)
        return float(table.seconds)


def offsets(nbytes: Sequence[int], packed: bool) -> list[int]:
    """Where arguments are in the words of a call, in bytes. packed: those past the eighth are as near to each other as
    their sizes allow, as on Apple's processors; else each has a word."""
    found, end = [], 0
    for i, size in enumerate(nbytes):
        unit = size if packed and i >= 8 else 8
        start = -(-end // unit) * unit
        found.append(start)
        end = start + unit
    return found


def set_threads(count: int | None) -> None:
    """How many threads compute in this process, with the caller's; None for `threads.count()`."""
    global _wanted, _started
    with _lock:
        _wanted, _started = count, None


_lock = threading.RLock()  # of whoever runs a table, or starts threads; a signal handler may run one in between
_wanted: int | None = None
_started: int | None = None  # threads
_forks = False  # whether `_forked` is called


def _start() -> None:
    global _started, _forks
    loaded = library()
    assert loaded is not None
    if not _forks:
        os.register_at_fork(after_in_child=_forked)
        _forks = True
    _started = loaded.executor_threads(threads.count() if _wanted is None else _wanted)


def _forked() -> None:
    """In a child."""
    global _lock, _started
    _lock, _started = threading.RLock(), None
    if (loaded := library()) is not None:
        loaded.executor_forked()


def _laid_out(launches: Sequence[Launch], given: int) -> tuple[npt.NDArray[np.generic], ...]:
    """The arrays of executor.c: launches, argument words, places."""
    rows, words, places = [], bytearray(), []
    for l in launches:
        count = next((n for n in _WORDS if len(l.arguments) <= n), 0)
        if not count:
            raise LaunchError(f"a launch has {len(l.arguments)} arguments, expected at most {MOST_ARGUMENTS}")
        if not 0 < l.slices <= MOST_SLICES:
            raise LaunchError(f"a launch has {l.slices} slices, expected 1 to {MOST_SLICES}")
        sizes = [4 if i in l.integers else 8 for i in range(len(l.arguments))]
        at, first, own = offsets(sizes, sys.platform == "darwin"), len(words), bytearray(8 * count)
        for argument, offset, size in zip(l.arguments, at, sizes, strict=True):
            if not isinstance(argument, Given):
                own[offset : offset + size] = (argument % 2 ** (8 * size)).to_bytes(size, "little")
            elif 0 <= argument.index < given:
                places.append((first + offset, argument.add, argument.index, size))
            else:
                raise LaunchError(f"a launch is given value {argument.index} of {given}")
        words += own
        rows.append((l.code, first // 8, count, l.slices, -1 if l.core is None else at[l.core]))
    return np.array(rows, _LAUNCH), np.frombuffer(bytes(words), np.uint64).copy(), np.array(places, _PLACE)
