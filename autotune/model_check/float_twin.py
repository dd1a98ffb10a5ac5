"""Writes the float twin of a GGUF file: a file with the same keys and all weights dequantised to F32.

llama.cpp rounds activations to 8 bits before it multiplies them by quantised weights, but not with F32 weights. With
the twin, its results have no such rounding.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import gguf
import numpy as np

from db.errors import FileError, file_errors
from kernels.formats import reference

_SPLIT = "split."
_FOLDER = "autotune-twin-"


@contextmanager
def temporary_twin(files: Sequence[Path]) -> Iterator[Path]:
    """The twin of a model in the system's temporary folder, which is removed at the end of the context. Raises
    FileError if the folder is too small or cannot be written."""
    with ExitStack() as stack:
        with file_errors("a temporary folder for the weights in F32 (TMPDIR)"):
            _remove_abandoned()
            name = stack.enter_context(_locked_folder())
        needed, free = twin_nbytes(files), shutil.disk_usage(name).free
        if needed > free:
            room = f"the weights in F32 take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
            raise FileError(f"{name}: {room}: set TMPDIR to a folder on a larger disk")
        twin = name / "twin.gguf"
        with file_errors(twin):
            write_float_twin(files, twin)
        yield twin


@contextmanager
def _locked_folder() -> Iterator[Path]:
    """A temporary folder, which is gone afterwards. It gets the name that `_remove_abandoned` looks for only when it is
    locked. Raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix=f".{_FOLDER}"))
    try:
        with _locked(folder):
            folder = folder.rename(folder.with_name(folder.name.removeprefix(".")))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder. The lock also ends when this process is killed. Raises BlockingIOError if it is
    held."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _remove_abandoned() -> None:
    """Removes the folders of killed processes, because twins are large."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with suppress(OSError), _locked(folder):  # fails if the folder is another user's or in use
            shutil.rmtree(folder)


def twin_nbytes(files: Sequence[Path]) -> int:
    """The approximate size of a twin in bytes."""
    return sum(4 * int(t.n_elements) for path in files for t in gguf.GGUFReader(path).tensors)


def write_float_twin(files: Sequence[Path], twin: Path) -> None:
    """Writes the twin of a model. files: all shards in order, the first of which has the keys. Raises OSError."""
    readers = [gguf.GGUFReader(path) for path in files]
    architecture = readers[0].fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(twin, architecture)
    for field in readers[0].fields.values():
        if not field.name.startswith(("GGUF.", _SPLIT)) and field.name != "general.architecture":
            kind, *items = field.types
            writer.add_key_value(field.name, field.contents(), kind, items[-1] if items else None)
    for reader in readers:
        for t in reader.tensors:
            shape = [int(size) for size in reversed(t.shape)]
            writer.add_tensor_info(t.name, shape, np.dtype(np.float32), 4 * int(t.n_elements))
    try:
        _write(writer, readers)
    except OSError:
        with suppress(OSError):  # buffered data cannot be written either
            writer.close()
        raise
    writer.close()


def _write(writer: gguf.GGUFWriter, readers: Sequence[gguf.GGUFReader]) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for reader in readers:
        for t in reader.tensors:  # one at a time, because all of them may not fit into memory
            shape = [int(size) for size in reversed(t.shape)]
            n, k = math.prod(shape[:-1]), shape[-1]
            rows = np.ascontiguousarray(t.data).view(np.uint8).reshape(n, -1)
            writer.write_tensor_data(reference.dequantize(rows, t.tensor_type.name, (n, k)).reshape(shape))
