"""Text in and out of the commands: stdin, stdout and stderr, each of which may be closed, full, or in any encoding."""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from db.errors import AutotuneError, without_secrets

UTF8 = "utf-8"
MAX_STDIN_NBYTES = 1 << 26
_REMEDY = "iconv converts text to UTF-8"


class TextError(AutotuneError):
    """A standard stream cannot be read or written, or what was given is no text: the message says which and why."""


class ReaderGoneError(Exception):
    """Nobody reads stdout any more, as in `| head`. The commands end with status 1 and say nothing."""


def echo(text: str = "", *, nl: bool = True) -> None:
    """Writes text to stdout at once; characters that its encoding lacks as escapes, such as \\u65e5.

    Raises TextError where stdout cannot be written, ReaderGoneError. Where stdout is closed, nothing is written.
    """
    if sys.stdout is None:
        return
    with writing():
        sys.stdout.write(_encodable(f"{text}\n" if nl else text, sys.stdout))
        sys.stdout.flush()


def line_width() -> int | None:
    """Characters of a line of the terminal that stdout is; None for a file or a pipe, whose lines programs read."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def tell(text: str) -> None:
    """Writes a line to stderr, without the secrets of URLs; where that fails, nobody can be told."""
    if sys.stderr is None:
        return
    with telling():
        sys.stderr.write(_encodable(f"{without_secrets(text)}\n", sys.stderr))
        sys.stderr.flush()


def say(value: Any) -> None:
    """Prints one JSON value."""
    echo(_json(value, indent=2))


def say_line(event: str, **value: Any) -> None:
    """Prints one JSON object on one line, at once: more lines may take minutes."""
    echo(_json({"event": event, **value}))


@contextmanager
def writing() -> Iterator[None]:
    """Around what writes to stdout: turns OSError into TextError or ReaderGoneError."""
    try:
        yield
    except OSError as e:
        _abandon(sys.stdout)
        if e.errno == errno.EPIPE:
            raise ReaderGoneError from e
        raise TextError(f"stdout cannot be written: {e.strerror or e}") from e


@contextmanager
def telling() -> Iterator[None]:
    """Around what writes to stderr: OSError ends the block, and nothing more."""
    try:
        yield
    except OSError:
        _abandon(sys.stderr)


def read_stdin(what: str, encoding: str | None = None, most: int = MAX_STDIN_NBYTES) -> str:
    """All of stdin, in this encoding, by default its own, but UTF-8 where that is ASCII. `what` is read, as the user
    knows it.

    Raises TextError where stdin is closed, cannot be read, holds no text, or more than `most` bytes.
    """
    if sys.stdin is None:
        raise TextError(f"stdin is closed: {what} was to be read from it")
    if sys.stdin.isatty():
        tell(f"{what} is read from this terminal: Ctrl-D on a line of its own ends it")
    try:
        data = sys.stdin.buffer.read(most + 1)
    except OSError as e:
        raise TextError(f"stdin cannot be read: {e.strerror or e}") from e
    if len(data) > most:
        raise TextError(f"stdin has more than the {most} bytes that are read of {what}")
    encoding = codecs.lookup(encoding or sys.stdin.encoding or UTF8).name
    return _text(data, UTF8 if encoding == "ascii" else encoding, "stdin")


def argument(text: str, what: str) -> str:
    """An argument of the command line: bytes that the locale's encoding could not decode are taken for UTF-8.

    Raises TextError where they are not, naming `what`.
    """
    if not re.search("[\ud800-\udfff]", text):
        return text
    return _text(os.fsencode(text), UTF8, what)


def _text(data: bytes, encoding: str, what: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as e:
        seen = f"byte 0x{data[e.start]:02x} at offset {e.start}"
        raise TextError(f"{what} is not {encoding.upper()} text ({seen}); {_REMEDY}") from e


def _json(value: Any, indent: int | None = None) -> str:
    """JSON with all characters as they are if stdout's encoding has them, else in ASCII."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(_encoding(sys.stdout))
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    return text


def _encodable(text: str, stream: TextIO) -> str:
    """`text`, with escapes for what the stream's encoding lacks."""
    encoding = _encoding(stream)
    try:
        text.encode(encoding, stream.errors or "strict")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _encoding(stream: TextIO | None) -> str:
    return getattr(stream, "encoding", None) or UTF8


def _abandon(stream: TextIO | None) -> None:
    """Sends what is still buffered nowhere: Python would try to write it again when it ends, and fail."""
    with suppress(OSError, AttributeError):  # a stream without a file, or none
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, stream.fileno())  # type: ignore[union-attr]
        os.close(sink)
