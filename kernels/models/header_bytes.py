"""Reads the bytes of a header in order: local files, and a cursor that fetches one window at a time and checks lengths.

The cursor knows GGUF's integers and strings only; `header_values` and `header` interpret them. It only moves forward,
so that a source may be a stream, and it fetches the next window only when a byte of it is needed.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import Protocol

from db.errors import AutotuneError, without_secrets

FIRST_WINDOW_NBYTES = 1 << 16
LAST_WINDOW_NBYTES = 1 << 21
MAX_HEADER_NBYTES = 1 << 27  # the largest tokenizers take about 20 MB
MAX_STEPS = 1 << 22  # a step takes about 0.1 µs; each string is a step, and the largest tokenizers have under 10^6
MAX_NAME_NBYTES = 4096

_U64 = struct.Struct("<Q")


class HeaderError(AutotuneError, ValueError):
    """A header cannot be read. The message has the file, the byte offset where known, what was seen, and a remedy."""

    def __init__(self, source: str, message: str, offset: int | None = None) -> None:
        super().__init__(f"{source}: {message}" if offset is None else f"{source}: byte {offset}: {message}")
        self.source, self.offset = without_secrets(source), offset


class Source(Protocol):
    """A file of known size. `read` returns exactly nbytes from offset or raises HeaderError. Offsets never decrease."""

    name: str
    size: int

    def read(self, offset: int, nbytes: int) -> bytes: ...

    def close(self) -> None: ...


class LocalFile:
    """A regular file on this machine. Raises HeaderError for pipes, which would block, and devices, which never end."""

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise HeaderError(self.name, "is not a regular file: give the path of a .gguf file")
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise HeaderError(self.name, f"cannot be opened: {error.strerror}") from error
        except ValueError as error:
            if isinstance(error, HeaderError):
                raise
            raise HeaderError(repr(self.name), f"is not a path: {error}") from error  # an embedded NUL
        self.size = status.st_size

    def read(self, offset: int, nbytes: int) -> bytes:
        try:
            self._file.seek(offset)
            data = self._file.read(nbytes)
        except OSError as error:
            raise HeaderError(self.name, f"cannot be read: {error.strerror}", offset) from error
        if len(data) != nbytes:
            raise HeaderError(self.name, f"{len(data)} of {nbytes} bytes could be read: did it shrink?", offset)
        return data

    def close(self) -> None:
        self._file.close()


class Cursor:
    """Reads a source forward. The window doubles each time: small headers fetch few bytes, large ones need few
    requests."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._end = min(source.size, MAX_HEADER_NBYTES)
        self._window, self._base, self._pos = b"", 0, 0
        self._next_nbytes = FIRST_WINDOW_NBYTES
        self._steps = 0

    @property
    def offset(self) -> int:
        return self._base + self._pos

    @property
    def left(self) -> int:
        """Bytes up to the end of the file or to the largest allowed header, whichever comes first."""
        return self._end - self.offset

    def error(self, message: str, offset: int | None = None) -> HeaderError:
        """The error about the byte at offset, by default at the current position."""
        return HeaderError(self._source.name, message, self.offset if offset is None else offset)

    def _check(self, nbytes: int, what: str, offset: int) -> None:
        if nbytes > self._end - offset:
            raise self.error(f"{what} takes {nbytes} bytes, {self._end - offset} are left: {self._remedy()}", offset)

    def _remedy(self) -> str:
        if self._end < self._source.size:
            return f"a header larger than {MAX_HEADER_NBYTES} bytes is not read, is this file damaged?"
        return "the file is truncated or damaged, fetch it again"

    def require(self, count: int, nbytes_each: int, what: str) -> None:
        """Raises HeaderError if `count` elements of at least nbytes_each do not fit into the rest of the file."""
        if count * nbytes_each > self.left:
            raise self.error(
                f"{count} {what} need at least {nbytes_each} bytes each, {self.left} are left: {self._remedy()}"
            )

    def spend(self, steps: int, what: str) -> None:
        """Counts steps and raises HeaderError above MAX_STEPS, which bounds the time that a damaged header can take."""
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise self.error(
                f"{what} has more strings or arrays than any model needs (limit {MAX_STEPS}), is it damaged?"
            )

    def _need(self, nbytes: int, what: str) -> None:
        """Ensures that the window holds nbytes from the current position."""
        if self._pos + nbytes <= len(self._window):
            return
        self._check(nbytes, what, self.offset)
        rest = self._window[self._pos :]
        self._base += self._pos
        self._pos = 0
        start = self._base + len(rest)
        size = min(max(self._next_nbytes, nbytes - len(rest)), self._source.size - start)
        self._window = rest + self._source.read(start, size)
        self._next_nbytes = min(2 * self._next_nbytes, LAST_WINDOW_NBYTES)

    def take(self, nbytes: int, what: str) -> bytes:
        self._need(nbytes, what)
        self._pos += nbytes
        return self._window[self._pos - nbytes : self._pos]

    def skip(self, nbytes: int, what: str) -> None:
        self._check(nbytes, what, self.offset)
        self._jump(self._pos + nbytes)

    def _jump(self, pos: int) -> None:
        """Moves to an index of the window, or beyond it without fetching the bytes in between."""
        if pos <= len(self._window):
            self._pos = pos
        else:
            self._window, self._base, self._pos = b"", self._base + pos, 0

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), "little")

    def text(self, nbytes: int, what: str) -> str:
        """The next nbytes as UTF-8."""
        start = self.offset
        data = self.take(nbytes, what)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            bad = data[error.start : error.start + 4].hex(" ")
            raise self.error(f"{what} is not UTF-8: it has the bytes {bad}", start + error.start) from error

    def name(self, what: str) -> str:
        """A length and its UTF-8 text: the key of a metadata entry, or a tensor's name."""
        start = self.offset
        nbytes = self.u64(f"the length of {what}")
        if not 0 < nbytes <= MAX_NAME_NBYTES:
            raise self.error(f"{what} has {nbytes} bytes, from 1 to {MAX_NAME_NBYTES} are allowed", start)
        name = self.text(nbytes, what)
        if not name.isprintable():  # messages will contain it
            raise self.error(f"{what} has unprintable characters: {name!r:.80}", start)
        return name

    def strings(self, count: int, what: str) -> tuple[str, ...]:
        """count strings (uint64 length, bytes). Invalid UTF-8, which real vocabularies contain, becomes U+FFFD."""
        self.require(count, 8, f"strings of {what}")
        self.spend(count, what)
        return tuple(self.take(self.u64(f"a length in {what}"), what).decode(errors="replace") for _ in range(count))

    def skip_strings(self, count: int, what: str) -> None:
        """Skips count strings (uint64 length, bytes) without creating objects.

        This loop dominates the time to read a header: a tokenizer has 4·10^5 strings.
        """
        self.require(count, 8, f"strings of {what}")
        self.spend(count, what)
        unpack, window, pos = _U64.unpack_from, self._window, self._pos
        start, last = pos, len(window) - 8
        for _ in range(count):
            if pos > last:
                self._land(pos, start, what)
                self._need(8, f"the length of a string of {what}")
                window, pos = self._window, self._pos
                last = len(window) - 8
            start = pos
            pos += 8 + unpack(window, pos)[0]
        self._land(pos, start, what)

    def _land(self, pos: int, start: int, what: str) -> None:
        """Moves to the end of the string that began at start. Raises HeaderError if it lies outside the file."""
        self._check(pos - start, f"a string of {what}", self._base + start)
        self._jump(pos)
