"""The contents of the tables of formats: ggml's codebooks, from the `gguf` package. Knows nothing about devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.formats import get_format

Array = npt.NDArray[np.generic]


def _grid(format: str) -> npt.NDArray[np.float32]:
    """The entries of the grid of a format, float32 [entries, 4 or 8]."""
    from gguf import quants

    source: Any = getattr(quants, format)
    source.init_grid()
    grid: npt.NDArray[np.float32] = source.grid.reshape(source.grid_shape)
    return grid


def _bytes(format: str) -> Array:
    """The grid as uint32: the 4 magnitudes of an item are its bytes, the first one lowest."""
    return np.ascontiguousarray(_grid(format).astype(np.uint8)).view("<u4").reshape(-1).astype(np.uint32)


def _nibbles(format: str) -> Array:
    """The grid as uint32: the 8 weights (-1, 0 or 1) of an item, plus 1, are its nibbles, the first one lowest."""
    nibbles: npt.NDArray[np.uint32] = (_grid(format) + np.float32(1)).astype(np.uint32) << (
        4 * np.arange(8, dtype=np.uint32)
    )
    return np.asarray(np.bitwise_or.reduce(nibbles, axis=1), np.uint32)


def _values(format: str) -> Array:
    from gguf import quants

    return np.array(quants.IQ4_NL.kvalues, np.float32)


_CONTENTS: dict[str, Callable[[str], Array]] = {
    **dict.fromkeys(("IQ1_S", "IQ1_M"), _nibbles),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), _bytes),
    **dict.fromkeys(("IQ4_NL", "IQ4_XS"), _values),
}


@functools.cache
def _contents(format: str) -> Array:
    return _CONTENTS[format](format)


def arrays(format: str) -> tuple[Array, ...]:
    """The tables of a format, in order; () for most formats. gguf is slow to import, and imported only if it is
    needed."""
    return tuple(_contents(format).astype(table.dtype) for table in get_format(format).tables)
