"""Tiled weights: the rows of a packed weight interleaved by TILE, for kernels whose vector lanes are rows.

A plane [rows, blocks, items] becomes [tiles, blocks, items, TILE]: item i of a block of all rows of a tile lie side by
side. Each matrix of a stack (heads, experts) is padded with rows of zeros to whole tiles by itself. The bits are those
of the file, but for the fifth bits of Q5_0 and Q5_1, which are placed where a shift and a mask find those of a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.formats import Plane, get_format

TILE = 16
TILED_FORMATS = (
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_NL",
    "IQ4_XS",
    "MXFP4",
)
"""The formats that have kernels over tiled weights."""

Array = npt.NDArray[Any]


def tiles(n: int) -> int:
    """Number of tiles of a matrix of n rows."""
    return -(-n // TILE)


def tiled_shape(plane: Plane, matrices: int, n: int, blocks: int) -> tuple[int, int, int, int]:
    """The shape of a tiled plane of `matrices` stacked matrices of n rows each."""
    return matrices * tiles(n), blocks, plane.items, TILE


def tile_planes(format: str, planes: Sequence[Array], matrices: int = 1) -> tuple[Array, ...]:
    """The planes [matrices * n, blocks, items] of a packed weight, tiled: [tiles, blocks, items, TILE]."""
    return tuple(
        _tiled(_placed(format, plane.name, array), matrices)
        for plane, array in zip(get_format(format).planes, planes, strict=True)
    )


def _tiled(plane: Array, matrices: int) -> Array:
    rows, blocks, items = plane.shape
    n = rows // matrices
    stacked = plane.reshape(matrices, n, blocks * items)
    if extra := -n % TILE:
        stacked = np.concatenate([stacked, np.zeros((matrices, extra, blocks * items), plane.dtype)], 1)
    side_by_side = stacked.reshape(-1, TILE, blocks * items).swapaxes(1, 2)
    return np.ascontiguousarray(side_by_side).reshape(-1, blocks, items, TILE)


def _placed(format: str, name: str, plane: Array) -> Array:
    """The fifth bit of weight 16 * high + 4 * word + i, which is that bit of the file's qh, as bit 8 * i + 4 * high +
    word: the bits of the weights of a word are then one in each byte."""
    if name != "qh" or format not in ("Q5_0", "Q5_1"):
        return plane
    placed = np.zeros_like(plane)
    for high in range(2):
        for word in range(4):
            four = plane >> np.uint32(16 * high + 4 * word)
            spread = (four & 1) | (four & 2) << 7 | (four & 4) << 14 | (four & 8) << 21
            placed |= spread << np.uint32(4 * high + word)
    return placed
