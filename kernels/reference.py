"""The slow and obvious truth: dequantise with the `gguf` package, multiply in float64. Shares no code with the kernels.

Also makes random weights that are valid blocks of a format. Not for run time: importing gguf is slow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, quants

from kernels.formats import get_format

Raw = npt.NDArray[np.uint8]
# bytes of a block that hold float16 scales; all other bytes of these formats may be anything
_SCALES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q8_0": (0,),
    "Q4_K": (0, 2),
    "Q6_K": (208,),
}
# of 16 rows, how many have zero, tiny (a denormal float16) and large scales
_ZERO, _TINY, _LARGE = 1, 1, 1


def random_blocks(format: str, n: int, k: int, rng: np.random.Generator) -> Raw:
    """Random valid rows, uint8 [n, row_nbytes]: any quants, scales of about 1/100, some rows with zero, tiny or large
    ones. Plain formats get normal values."""
    fmt = get_format(format)
    shape = (n, fmt.blocks(k))
    kind = np.arange(n) % 16
    factor = np.select([kind == 3, kind == 7, kind == 11], [0.0, 1e-4, 100.0], 1.0)[:, None]
    if format not in _SCALES:
        values = (rng.standard_normal((n, k), dtype=np.float32) * factor).astype(np.float32)
        return np.ascontiguousarray(quants.quantize(values, GGMLQuantizationType[format])).view(np.uint8).reshape(n, -1)
    raw = rng.integers(0, 256, (*shape, fmt.nbytes), dtype=np.uint8)
    for at in _SCALES[format]:
        scales = (rng.uniform(0.002, 0.02, shape) * factor).astype(np.float16)
        raw[:, :, at : at + 2] = scales[:, :, None].view(np.uint8)
    return raw.reshape(n, -1)


def dequantize(raw: Raw, format: str, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Rows of blocks, uint8 [n, row_nbytes], as float32 [n, k]."""
    kind = GGMLQuantizationType[format]
    if kind is GGMLQuantizationType.F32:
        return np.ascontiguousarray(raw).view(np.float32).reshape(shape)
    if kind is GGMLQuantizationType.F16:
        return np.ascontiguousarray(raw).view(np.float16).reshape(shape).astype(np.float32)
    return np.asarray(quants.dequantize(raw, kind), np.float32).reshape(shape)


def linear(raw: Raw, format: str, shape: tuple[int, int], x: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """x [m, k] times the dequantised weight [n, k], transposed: float64 [m, n]."""
    return x.astype(np.float64) @ dequantize(raw, format, shape).astype(np.float64).T
