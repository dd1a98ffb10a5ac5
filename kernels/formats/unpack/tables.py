"""The contents of the formats' tables: codebooks of ggml, as the `gguf` package has them. Knows nothing of devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.formats import get_format

Array = npt.NDArray[np.generic]


def _grid(format: str) -> npt.NDArray[np.float32]:
    """Every entry of a format's grid, float32 [entries, 4 or 8]."""
    from gguf import quants

    source: Any = getattr(quants, format)
    source.init_grid()
    grid: npt.NDArray[np.float32] = source.grid.reshape(source.grid_shape)
    return grid


def _bytes(format: str) -> Array:
    """Magnitudes, a byte each: 4 in a uint32, the first lowest."""
    return np.ascontiguousarray(_grid(format).astype(np.uint8)).view("<u4").reshape(-1).astype(np.uint32)


def _nibbles(format: str) -> Array:
    """-1, 0 or 1 plus 1, a nibble each: 8 in a uint32, the first lowest."""
    nibbles: npt.NDArray[np.uint32] = (_grid(format) + np.float32(1)).astype(np.uint32) << (
        4 * np.arange(8, dtype=np.uint32)
    )
    return np.asarray(np.bitwise_or.reduce(nibbles, axis=1), np.uint32)


def _values(format: str) -> Array:
    from gguf import quants

    return np.array(quants.IQ4_NL.kvalues, np.float32)


_CONTENTS: dict[str, Callable[[str], Array]] = {
    "IQ1_S": _nibbles,
    "IQ1_M": _nibbles,
    "IQ2_XXS": _bytes,
    "IQ2_XS": _bytes,
    "IQ2_S": _bytes,
    "IQ3_XXS": _bytes,
    "IQ3_S": _bytes,
    "IQ4_NL": _values,
    "IQ4_XS": _values,
}


@functools.cache
def _contents(format: str) -> Array:
    return _CONTENTS[format](format)


def arrays(format: str) -> tuple[Array, ...]:
    """A format's tables, in their order; () for most. gguf, which takes a moment to import, is asked when a format
    first needs it."""
    return tuple(_contents(format).astype(table.dtype) for table in get_format(format).tables)
