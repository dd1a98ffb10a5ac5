"""The one base class of this project's errors, and those that several modules raise. Standard library only."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager

_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 2, 80, 80, 40


_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(r"(://[^?#\s]*)([?#][^\s'\")]*)")
_VALUE = re.compile(r"=.*?(?=[&;#]|[:,.]*$)")


def without_secrets(text: str) -> str:
    """The text, its URLs without user, password and the values of their queries: any of them may be a token."""
    if "://" not in text:
        return text
    text = _USER.sub("***@", text)
    return _QUERY.sub(lambda m: m[1] + _VALUE.sub("=***", m[2]), text)


class AutotuneError(Exception):
    """Something outside of this program is not as it must be: the input, a file, the device, the machine.

    The message is for the user: it names the value that was seen, and the limit or the remedy. The command line prints
    it as one line and ends with status 2. Whatever is no AutotuneError is a fault of this program. The secrets of URLs
    are not in it, and what a terminal could take for a command is escaped.
    """

    def __str__(self) -> str:
        said = (c if c.isprintable() or c.isspace() else c.encode("unicode_escape").decode() for c in super().__str__())
        return without_secrets("".join(said))


class SettingError(AutotuneError, ValueError):
    """An option or an environment variable has a value that it cannot have: the message names both."""


class StoreError(AutotuneError, ValueError):
    """The store cannot be used as asked: the message names it, what was seen and what to do."""


class FileError(AutotuneError):
    """A file or a folder cannot be read or written: the message names it and says what the system said."""


@contextmanager
def file_errors(what: object) -> Iterator[None]:
    """Turns OSError into FileError about `what`, the path as the user knows it."""
    try:
        yield
    except OSError as e:
        raise FileError(f"{what}: {e.strerror or e}") from e


def shown(value: object) -> str:
    """A value as a message shows it: at most some 100 characters, at no cost for one that is large or deep."""
    return f"{_REPR.repr(value):.120}"
