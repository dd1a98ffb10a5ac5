"""The command line inside this process, with real standard streams: in any encoding, closed, full, or a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO
from unittest import mock

from autotune.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status, and the bytes it wrote to stdout and stderr (none where these were given)."""

    status: int
    out: bytes
    err: str

    @property
    def last(self) -> str:
        """The last line on stderr, or nothing."""
        return (self.err.splitlines() or [""])[-1]


def stream(data: bytes = b"", encoding: str = "utf-8") -> TextIO:
    """A standard stream as Python makes it: it refuses characters that its encoding lacks."""
    return io.TextIOWrapper(io.BytesIO(data), encoding=encoding, errors="strict", write_through=True)


@contextlib.contextmanager
def full() -> Iterator[TextIO]:
    """A stream to a disk without room."""
    file = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115 - closing it fails where something is left to write
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            file.close()


def call(*arguments: str, **streams: TextIO | None) -> Ended:
    """Runs a command with these for sys.stdin, stdout and stderr; None is a closed one."""
    given: dict[str, Any] = {"stdin": stream(), "stdout": stream(), "stderr": stream(), **streams}
    with contextlib.ExitStack() as stack:
        for name, value in given.items():
            stack.enter_context(mock.patch.object(sys, name, value))
        status = _status(arguments)
    out, err = (_written(given[name]) for name in ("stdout", "stderr"))
    return Ended(status, out, err.decode())


def _status(arguments: tuple[str, ...]) -> int:
    try:
        main(list(arguments), prog_name="autotune")
    except SystemExit as e:
        return int(e.code or 0)
    raise AssertionError("a command ends with SystemExit")


def _written(given: TextIO | None) -> bytes:
    buffer = getattr(given, "buffer", None)
    return buffer.getvalue() if isinstance(buffer, io.BytesIO) else b""


@contextlib.contextmanager
def terminal(typed: bytes) -> Iterator[TextIO]:
    """The stdin of a terminal at which this was typed, and then Ctrl-D at the beginning of a line."""
    master, slave = os.openpty()
    try:
        os.write(master, typed + b"\x04")
        with os.fdopen(slave, encoding="utf-8") as stdin:
            yield stdin
    finally:
        os.close(master)
