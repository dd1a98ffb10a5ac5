"""The command line inside this process, held to what it promises: no traceback, a status that means something, and one
line where it refuses."""

from __future__ import annotations

import re
import traceback
import warnings
from pathlib import Path
from typing import TextIO

from support import streams

from .attack import BrokenError, Promise

ROOT = Path(__file__).parents[2]
STATUSES = (0, 1, 2)
MOST_LINES = 12  # on stderr; notes of what could not be read, and the line that says why
_REFUSED = re.compile(r"(autotune|Error): \S")


def where_of(error: BaseException) -> str:
    """The kind of an exception and the innermost line of this project that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if _of_project(f.filename)]
    last = ours[-1] if ours else frames[-1]
    return f"{type(error).__name__} in {_short(last.filename)}:{last.name}"


def came_through_project(error: BaseException) -> bool:
    return any(_of_project(f.filename) for f in traceback.extract_tb(error.__traceback__))


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def run(*arguments: str, statuses: tuple[int, ...] = STATUSES, **given: TextIO | None) -> streams.Ended:
    """Runs a command. Raises BrokenError where it ends as no command may."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ended = streams.call(*arguments, **given)
    except Exception as error:
        raise BrokenError(Promise.TRACEBACK, where_of(error), f"{shown(arguments)}\n{told(error)}") from error
    checked(arguments, ended.status, ended.err, statuses)
    return ended


def importing(file: str | Path, store: Path, *, verify: bool = False) -> tuple[str, ...]:
    """The words of an import. With `verify` it compiles and runs what it is given, which takes seconds."""
    return ("import", str(file), *(() if verify else ("--no-verify",)), "--db", str(store))


def checked(arguments: tuple[str, ...], status: int, err: str, statuses: tuple[int, ...] = STATUSES) -> None:
    """Raises BrokenError unless a command ended with one of `statuses`, and said in few lines why it refused."""
    about = f"{shown(arguments)}\nstatus {status}, stderr:\n{err[-3000:]}"
    if "Traceback (most recent call last)" in err or "Exception ignored" in err:
        last = [line for line in err.splitlines() if line and not line.startswith(" ")][-1:]
        raise BrokenError(Promise.TRACEBACK, f"stderr of {arguments[0]}: {''.join(last):.80}", about)
    if status not in statuses:
        raise BrokenError(Promise.WORD, f"status {status} of {arguments[0]}", about)
    if status == 2 and not (_REFUSED.search(err) and len(err.splitlines()) <= MOST_LINES):
        raise BrokenError(Promise.WORD, f"no line says why {arguments[0]} refuses", about)


def shown(arguments: tuple[str, ...]) -> str:
    return " ".join(("autotune", *arguments))


def _of_project(file: str) -> bool:
    return file.startswith(tuple(f"{ROOT}/{part}/" for part in ("autotune", "kernels", "db")))


def _short(file: str) -> str:
    return file.removeprefix(f"{ROOT}/").rpartition("site-packages/")[2]
