"""GGML weight formats: block sizes and how a block's bytes are split into aligned planes. A table, no kernels.

Layouts are those of ggml's `block_*` structs (ggml-common.h). A block whose size is no multiple of 4 bytes would leave
the next one misaligned, so a packed weight is kept as planes: one array a field, `[n, blocks, items]`, each read with
whole aligned loads. Planes hold the file's bits unchanged: their total size is the file's size. Float16 fields are kept
as uint16, since not every device can load a half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


class FormatError(ValueError):
    """The format is unknown, or a shape or an array does not fit it."""


@dataclass(frozen=True)
class Plane:
    """One field of a block: bytes [start, stop), kept as an array of `dtype`."""

    name: str
    dtype: str
    start: int
    stop: int

    @property
    def items(self) -> int:
        return (self.stop - self.start) // np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Format:
    """A GGML type: `block` weights in `nbytes` bytes. `layout` names the module of `kernels.unpack` that reads it."""

    name: str
    block: int
    nbytes: int
    planes: tuple[Plane, ...]
    layout: str

    def blocks(self, k: int) -> int:
        """Blocks in a row of k weights; FormatError if k is not whole blocks."""
        if k % self.block:
            raise FormatError(f"{self.name}: a row of k={k} weights is not a multiple of its block of {self.block}")
        return k // self.block

    def row_nbytes(self, k: int) -> int:
        return self.blocks(k) * self.nbytes


def _format(name: str, block: int, layout: str, *fields: tuple[str, str, int]) -> Format:
    planes, at = [], 0
    for field, dtype, nbytes in fields:
        planes.append(Plane(field, dtype, at, at + nbytes))
        at += nbytes
    return Format(name, block, at, tuple(planes), layout)


_TABLE = (
    _format("Q4_0", 32, "legacy", ("d", "uint16", 2), ("qs", "uint32", 16)),
    _format("Q4_1", 32, "legacy", ("dm", "uint16", 4), ("qs", "uint32", 16)),
    _format("Q5_0", 32, "legacy", ("d", "uint16", 2), ("qh", "uint32", 4), ("qs", "uint32", 16)),
    _format("Q8_0", 32, "legacy", ("d", "uint16", 2), ("qs", "uint32", 32)),
    _format("Q4_K", 256, "kquant", ("dm", "uint16", 4), ("scales", "uint32", 12), ("qs", "uint32", 128)),
    _format(
        "Q6_K", 256, "kquant", ("ql", "uint32", 128), ("qh", "uint32", 64), ("scales", "int8", 16), ("d", "uint16", 2)
    ),
    _format("F32", 1, "plain", ("w", "float32", 4)),
    _format("F16", 1, "plain", ("w", "uint16", 2)),
    _format("BF16", 1, "plain", ("w", "uint16", 2)),
)
FORMATS = {f.name: f for f in _TABLE}


def get_format(name: str) -> Format:
    """The format called `name`; FormatError names the ones there are."""
    try:
        return FORMATS[name]
    except KeyError:
        raise FormatError(f"no kernels for the GGML type {name!r}; there are {', '.join(FORMATS)}") from None


def check_rows(shape: tuple[int, ...], fmt: Format, n: int, k: int) -> None:
    """FormatError unless `shape` is that of raw rows: uint8 [n, row_nbytes]."""
    if n < 1 or k < 1:
        raise FormatError(f"{fmt.name}: shape ({n}, {k}) has no weights")
    if tuple(shape) != (n, fmt.row_nbytes(k)):
        raise FormatError(
            f"{fmt.name}: ({n}, {k}) takes raw rows of shape {(n, fmt.row_nbytes(k))}, saw {tuple(shape)}"
        )


def split_planes(raw: npt.NDArray[np.uint8], name: str, shape: tuple[int, int]) -> tuple[npt.NDArray[np.generic], ...]:
    """Raw rows, uint8 [n, row_nbytes], as the format's planes, each [n, blocks, items]; nothing is converted."""
    fmt, (n, k) = get_format(name), shape
    check_rows(raw.shape, fmt, n, k)
    blocks = np.ascontiguousarray(raw).reshape(n, fmt.blocks(k), fmt.nbytes)
    return tuple(np.ascontiguousarray(blocks[:, :, p.start : p.stop]).view(p.dtype) for p in fmt.planes)
