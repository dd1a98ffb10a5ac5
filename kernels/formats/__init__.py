"""The table of GGML weight formats: the sizes of blocks, and how the bytes of a block are split into planes.

Blocks are laid out as ggml's `block_*` structs (ggml-common.h). The sizes of many are no multiples of 4 bytes, so that
a block would misalign the next one. A packed weight is therefore kept as planes: one array [n, blocks, items] for each
field of the block, which is read with aligned loads. Planes hold the bits of the file unchanged, and have the same size
in all. Fields of float16 are kept as uint16, since not every device can load a float16; these planes are called d or
dm.

A format whose quants are indices into a codebook also has tables, which are the same for every weight. A kernel takes
them after the planes; `kernels.formats.unpack.tables` makes their contents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from db.errors import AutotuneError


class FormatError(AutotuneError, ValueError):
    """The format is unknown, or a shape or an array does not fit it."""


@dataclass(frozen=True)
class Plane:
    """One field of a block: its bytes [start, stop), kept as an array of `dtype`."""

    name: str
    dtype: str
    start: int
    stop: int

    @property
    def items(self) -> int:
        return (self.stop - self.start) // np.dtype(self.dtype).itemsize

    def shape(self, n: int, blocks: int) -> tuple[int, ...]:
        return n, blocks, self.items


@dataclass(frozen=True)
class Table:
    """A codebook: an array of `dtype`, the same for every weight."""

    name: str
    dtype: str
    items: int

    def shape(self, n: int, blocks: int) -> tuple[int, ...]:
        return (self.items,)


@dataclass(frozen=True)
class Format:
    """A GGML type: `block` weights take `nbytes` bytes. `layout` is the module of `kernels.formats.unpack` that unpacks
    it, or "unquantized"."""

    name: str
    block: int
    nbytes: int
    planes: tuple[Plane, ...]
    layout: str
    tables: tuple[Table, ...] = ()

    @property
    def arrays(self) -> tuple[Plane | Table, ...]:
        """The arrays of a weight that a kernel takes, in slot order."""
        return (*self.planes, *self.tables)

    @property
    def fields(self) -> np.dtype[np.void]:
        """The dtype of a block: for each plane a field of bytes."""
        return np.dtype([(p.name, f"V{p.stop - p.start}") for p in self.planes])

    def blocks(self, k: int) -> int:
        """Number of blocks in a row of k weights. FormatError if k is not a multiple of the block size."""
        if k % self.block:
            raise FormatError(f"{self.name}: a row of k={k} weights is not a multiple of its block of {self.block}")
        return k // self.block

    def row_nbytes(self, k: int) -> int:
        return self.blocks(k) * self.nbytes


def _format(
    name: str, block: int, layout: str, *fields: tuple[str, str, int], tables: tuple[Table, ...] = ()
) -> Format:
    planes, at = [], 0
    for field, dtype, nbytes in fields:
        planes.append(Plane(field, dtype, at, at + nbytes))
        at += nbytes
    return Format(name, block, at, tuple(planes), layout, tables)


def _grid(items: int) -> tuple[Table, ...]:
    return (Table("grid", "uint32", items),)


_D = ("d", "uint16", 2)
_DM = ("dm", "uint16", 4)
# fmt: off
_TABLE = (
    _format("Q4_0", 32, "legacy", _D, ("qs", "uint32", 16)),
    _format("Q4_1", 32, "legacy", _DM, ("qs", "uint32", 16)),
    _format("Q5_0", 32, "legacy", _D, ("qh", "uint32", 4), ("qs", "uint32", 16)),
    _format("Q5_1", 32, "legacy", _DM, ("qh", "uint32", 4), ("qs", "uint32", 16)),
    _format("Q8_0", 32, "legacy", _D, ("qs", "uint32", 32)),
    _format("Q2_K", 256, "kquant", ("scales", "uint32", 16), ("qs", "uint32", 64), _DM),
    _format("Q3_K", 256, "kquant", ("hmask", "uint32", 32), ("qs", "uint32", 64), ("scales", "uint32", 12), _D),
    _format("Q4_K", 256, "kquant", _DM, ("scales", "uint32", 12), ("qs", "uint32", 128)),
    _format("Q5_K", 256, "kquant", _DM, ("scales", "uint32", 12), ("qh", "uint32", 32), ("qs", "uint32", 128)),
    _format("Q6_K", 256, "kquant", ("ql", "uint32", 128), ("qh", "uint32", 64), ("scales", "int8", 16), _D),
    _format("IQ1_S", 256, "iq", _D, ("qs", "uint32", 32), ("qh", "uint16", 16), tables=_grid(2048)),
    _format("IQ1_M", 256, "iq", ("qs", "uint32", 32), ("qh", "uint16", 16), ("scales", "uint32", 8),
            tables=_grid(2048)),
    _format("IQ2_XXS", 256, "iq", _D, ("qs", "uint32", 64), tables=_grid(512)),
    _format("IQ2_XS", 256, "iq", _D, ("qs", "uint16", 64), ("scales", "uint8", 8), tables=_grid(1024)),
    _format("IQ2_S", 256, "iq", _D, ("qs", "uint32", 32), ("signs", "uint32", 32), ("qh", "uint8", 8),
            ("scales", "uint8", 8), tables=_grid(2048)),
    _format("IQ3_XXS", 256, "iq", _D, ("qs", "uint32", 64), ("signs", "uint32", 32), tables=_grid(256)),
    _format("IQ3_S", 256, "iq", _D, ("qs", "uint32", 64), ("qh", "uint8", 8), ("signs", "uint32", 32),
            ("scales", "uint32", 4), tables=_grid(512)),
    _format("IQ4_NL", 32, "values", _D, ("qs", "uint32", 16), tables=(Table("values", "float32", 16),)),
    _format("IQ4_XS", 256, "values", _D, ("scales_h", "uint16", 2), ("scales_l", "uint32", 4), ("qs", "uint32", 128),
            tables=(Table("values", "float32", 16),)),
    _format("MXFP4", 32, "values", ("e", "uint8", 1), ("qs", "uint32", 16)),
    _format("NVFP4", 64, "values", ("scales", "uint32", 4), ("qs", "uint32", 32)),
    _format("TQ1_0", 256, "ternary", ("qs", "uint32", 48), ("qh", "uint32", 4), _D),
    _format("TQ2_0", 256, "ternary", ("qs", "uint32", 64), _D),
    _format("Q1_0", 128, "ternary", _D, ("qs", "uint32", 16)),
    _format("F32", 1, "unquantized", ("w", "float32", 4)),
    _format("F16", 1, "unquantized", ("w", "uint16", 2)),
    _format("BF16", 1, "unquantized", ("w", "uint16", 2)),
)
# fmt: on
FORMATS = {f.name: f for f in _TABLE}


def get_format(name: str) -> Format:
    """The format called `name`; FormatError names the ones there are."""
    try:
        return FORMATS[name]
    except KeyError:
        raise FormatError(f"no kernels for the GGML type {name!r}; there are {known()}") from None


def known() -> str:
    """The names of all formats, for a message."""
    return ", ".join(FORMATS)


def check_rows(shape: tuple[int, ...], fmt: Format, n: int, k: int) -> None:
    """FormatError unless `shape` is that of raw rows: uint8 [n, row_nbytes]."""
    if n < 1 or k < 1:
        raise FormatError(f"{fmt.name}: shape ({n}, {k}) has no weights")
    if tuple(shape) != (n, fmt.row_nbytes(k)):
        raise FormatError(
            f"{fmt.name}: ({n}, {k}) takes raw rows of shape {(n, fmt.row_nbytes(k))}, saw {tuple(shape)}"
        )


def split_planes(raw: npt.NDArray[np.uint8], name: str, shape: tuple[int, int]) -> tuple[npt.NDArray[np.generic], ...]:
    """Raw rows, uint8 [n, row_nbytes], split into the planes of the format, each [n, blocks, items]. Nothing is
    converted."""
    fmt, (n, k) = get_format(name), shape
    check_rows(raw.shape, fmt, n, k)
    blocks = np.ascontiguousarray(raw).view(fmt.fields)  # numpy copies a field at once, but items of it one by one
    return tuple(
        np.ascontiguousarray(blocks[p.name]).view(p.dtype).reshape(p.shape(n, fmt.blocks(k))) for p in fmt.planes
    )
