"""Files whose content is somebody else's, or whose old content must survive a failure. Standard library only."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from db.errors import FileError, file_errors


def regular_size(path: str | Path, most: int) -> int:
    """Bytes of a regular file. Raises FileError for anything else (a pipe would block, a device never end), and for a
    file of more than `most`."""
    with file_errors(path):
        status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise FileError(f"{path}: Is a directory; give a file")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{path}: no regular file, so it may never end; give a file, or - for stdin")
    if status.st_size > most:
        raise FileError(f"{path}: {status.st_size} bytes are more than the {most} that are read")
    return status.st_size


def read_file(path: str | Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes, however it grows meanwhile. Raises FileError."""
    regular_size(path, most)
    with file_errors(path), open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FileError(f"{path}: it grew beyond the {most} bytes that are read")
    return data


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A name beside `path` to write to. It takes the place of `path` in one step once the block has ended without an
    error: until then the old file is whole. What `path` links to is replaced, not the link.

    Raises FileError. What is no regular file, such as /dev/null, is written to as it is.
    """
    with file_errors(path):
        place = Path(os.path.realpath(path))
        special = place.exists() and not place.is_file()
    if special:
        with file_errors(path):
            yield place
        return
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    _remove(draft)  # of a process that was killed and had our id, as in containers
    try:
        with file_errors(path):
            yield draft
            with draft.open("rb") as written:
                os.fsync(written.fileno())
            draft.replace(place)
    finally:
        _remove(draft)


def _remove(draft: Path) -> None:
    """With the journals of a store."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(OSError):
            Path(f"{draft}{suffix}").unlink()
