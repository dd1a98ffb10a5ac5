"""Reads the tensor table of a GGUF header and checks shapes against formats, and offsets against each other and the
file.

The byte sizes of formats come from the gguf package, so formats without kernels are accepted here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kernels.models.header_bytes import Cursor
from kernels.models.header_values import Value

DEFAULT_ALIGNMENT, MAX_ALIGNMENT = 32, 1 << 20
MAX_DIMS = 4


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. `shape` is row-major, (n, k) for a weight of n rows; `format` is its GGML type, as in "Q4_K";
    `offset` is where its bytes start in `Header.files[file]`."""

    name: str
    shape: tuple[int, ...]
    format: str
    offset: int
    nbytes: int
    file: int = 0


def read_tensors(
    cursor: Cursor, count: int, metadata: Mapping[str, Value], size: int
) -> tuple[tuple[TensorInfo, ...], int]:
    """The table of `count` tensors at the cursor's position, and the offset of the tensor data. size: of the file.

    Raises HeaderError at the entry of a tensor that is invalid, overlaps another one, or ends beyond the file.
    """
    alignment = _alignment(cursor, metadata)
    sizes = _block_sizes()
    entries: dict[str, tuple[int, TensorInfo]] = {}  # name -> (offset of its entry, the tensor)
    for number in range(count):
        start = cursor.offset
        tensor = _tensor(cursor, cursor.name(f"the name of tensor {number + 1} of {count}"), sizes, alignment)
        if tensor.name in entries:
            raise cursor.error(f"tensor {tensor.name!r} is there twice", start)
        entries[tensor.name] = start, tensor
    data_offset = -(-cursor.offset // alignment) * alignment
    end, before = data_offset, ""
    for start, tensor in sorted(entries.values(), key=lambda entry: entry[1].offset):
        offset = data_offset + tensor.offset
        if offset < end:
            raise cursor.error(f"tensor {tensor.name!r} at {offset} overlaps {before!r}, which ends at {end}", start)
        end, before = offset + tensor.nbytes, tensor.name
        if end > size:
            found = f"the data of {tensor.name!r} ends at {end}, the file at {size}"
            raise cursor.error(f"{found}: truncated, fetch it again", start)
    return tuple(replace(t, offset=data_offset + t.offset) for _, t in entries.values()), data_offset


def _alignment(cursor: Cursor, metadata: Mapping[str, Value]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(value) is int and 0 < value <= MAX_ALIGNMENT and value.bit_count() == 1:
        return value
    raise cursor.error(f"general.alignment is {value!r}, a power of two up to {MAX_ALIGNMENT} is needed")


def _block_sizes() -> dict[int, tuple[str, int, int]]:
    """GGML type id -> (name, weights in a block, bytes of a block).

    The import is local because the gguf package and numpy take 0.15 s and 17 MB.
    """
    from gguf.constants import GGML_QUANT_SIZES

    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}


def _tensor(cursor: Cursor, name: str, sizes: Mapping[int, tuple[str, int, int]], alignment: int) -> TensorInfo:
    """One entry of the table after its name; the offset is still relative to the data."""
    start = cursor.offset
    n_dims = cursor.u32(f"the number of dimensions of {name}")
    if not 1 <= n_dims <= MAX_DIMS:
        raise cursor.error(f"tensor {name!r} has {n_dims} dimensions, from 1 to {MAX_DIMS} are allowed", start)
    shape = tuple(cursor.u64(f"the shape of {name}") for _ in range(n_dims))[::-1]
    if 0 in shape:
        raise cursor.error(f"tensor {name!r} of shape {shape} has a dimension of 0", start)
    start = cursor.offset
    kind = cursor.u32(f"the type of {name}")
    if kind not in sizes:
        raise cursor.error(f"tensor {name!r} has the GGML type {kind}, unknown to the gguf package: upgrade it", start)
    format_, block, block_nbytes = sizes[kind]
    if shape[-1] % block:
        rows = f"rows of {shape[-1]} are not a multiple of {format_}'s block of {block}"
        raise cursor.error(f"tensor {name!r}: {rows}", start)
    start = cursor.offset
    offset = cursor.u64(f"the offset of {name}")
    if offset % alignment:
        what = f"the offset {offset}, not a multiple of the alignment {alignment}"
        raise cursor.error(f"tensor {name!r} has {what}", start)
    return TensorInfo(name, shape, format_, offset, math.prod(shape) // block * block_nbytes)
