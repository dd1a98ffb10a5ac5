"""The slow and obvious truth: dequantise with the `gguf` package, multiply in float64. Shares no code with the kernels.

Also makes random weights that are valid blocks of a format. Not for run time: importing gguf is slow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, quants

from kernels.formats import get_format

Raw = npt.NDArray[np.uint8]
Scales = npt.NDArray[np.floating]


def random_blocks(format: str, n: int, k: int, rng: np.random.Generator) -> Raw:
    """Random valid rows, uint8 [n, row_nbytes]: any quants, scales of about 1/100; of 16 rows one has zero, one tiny (a
    denormal float16) and one large scales. Plain formats get normal values."""
    fmt = get_format(format)
    shape = (n, fmt.blocks(k))
    kind = np.arange(n) % 16
    factor = np.select([kind == 3, kind == 7, kind == 11], [0.0, 1e-4, 100.0], 1.0)[:, None]
    if fmt.layout == "plain":
        values = (rng.standard_normal((n, k), dtype=np.float32) * factor).astype(np.float32)
        return np.ascontiguousarray(quants.quantize(values, GGMLQuantizationType[format])).view(np.uint8).reshape(n, -1)
    raw = rng.integers(0, 256, (*shape, fmt.nbytes), dtype=np.uint8)
    if format in _OTHER_SCALES:
        _OTHER_SCALES[format](raw, rng.uniform(0.002, 0.02, shape) * factor)
    for plane in fmt.planes:
        if plane.name in ("d", "dm"):
            scales = (rng.uniform(0.002, 0.02, (*shape, plane.items)) * factor[:, :, None]).astype(np.float16)
            raw[:, :, plane.start : plane.stop] = scales.view(np.uint8)
    return raw.reshape(n, -1)


def _iq1m_scales(raw: Raw, scales: Scales) -> None:
    """A float16 whose nibbles are the top ones of the block's last four 16-bit words."""
    bits = scales.astype(np.float16).view(np.uint16)
    for i in range(4):
        raw[:, :, 49 + 2 * i] = (raw[:, :, 49 + 2 * i] & 15) | (((bits >> (4 * i)) & 15) << 4).astype(np.uint8)


def _mxfp4_scales(raw: Raw, scales: Scales) -> None:
    """The block's first byte is the exponent of a power of two. There is no scale of zero: the quants are made zero."""
    zero = scales == 0
    raw[:, :, 0] = np.rint(np.log2(np.where(zero, 1.0, scales))) + 128
    raw[zero, 1:] &= 0x88


def _nvfp4_scales(raw: Raw, scales: Scales) -> None:
    """Four bytes with four bits of exponent and three of mantissa: about eight times the logarithm."""
    codes = np.log2(np.maximum(scales, 1e-9)) * 8 + 64
    raw[:, :, :4] = np.clip(codes, scales > 0, 126)[:, :, None]


# formats whose scales are no float16 field of their own; all other bytes of a block format may be anything
_OTHER_SCALES: dict[str, Callable[[Raw, Scales], None]] = {
    "IQ1_M": _iq1m_scales,
    "MXFP4": _mxfp4_scales,
    "NVFP4": _nvfp4_scales,
}


def dequantize(raw: Raw, format: str, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Rows of blocks, uint8 [n, row_nbytes], as float32 [n, k]."""
    kind = GGMLQuantizationType[format]
    if kind is GGMLQuantizationType.F32:
        return np.ascontiguousarray(raw).view(np.float32).reshape(shape)
    if kind is GGMLQuantizationType.F16:
        return np.ascontiguousarray(raw).view(np.float16).reshape(shape).astype(np.float32)
    if kind is GGMLQuantizationType.Q1_0:
        return _dequantize_q1_0(raw).reshape(shape)
    return np.asarray(quants.dequantize(raw, kind), np.float32).reshape(shape)


def _dequantize_q1_0(raw: Raw) -> npt.NDArray[np.float32]:
    """The gguf package has no dequantiser for it. 128 weights a block: a float16 scale, then a bit a weight, lowest
    first, 1 for the scale and 0 for its negative (ggml-common.h, block_q1_0)."""
    blocks = np.ascontiguousarray(raw).reshape(-1, 18)
    signs = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.float32) * 2 - 1
    return blocks[:, :2].copy().view(np.float16).astype(np.float32) * signs


def linear(raw: Raw, format: str, shape: tuple[int, int], x: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """x [m, k] times the dequantised weight [n, k], transposed: float64 [m, n]."""
    return x.astype(np.float64) @ dequantize(raw, format, shape).astype(np.float64).T
