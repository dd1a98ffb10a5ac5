"""The reference of all formats: weights dequantised by the `gguf` package, and products in float64. Shares no code with
the kernels.

Also makes random weights that are valid blocks of a format. Not for use at run time: importing gguf is slow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, quants

from kernels.formats import get_format

Raw = npt.NDArray[np.uint8]
Scales = npt.NDArray[np.floating]


# scales at the edges of float16 (zeros, denormals, the largest numbers) and an ordinary one
EDGES = (0.0, -0.0, 2.0**-24, 1023 * 2.0**-24, 65504.0, -65504.0, 1.0)


def random_blocks(format: str, n: int, k: int, rng: np.random.Generator) -> Raw:
    """Random valid rows, uint8 [n, row_nbytes], with any quants and scales of about 1/100. Of every 16 rows one has
    scales of zero, one has tiny scales (denormal as float16) and one has large scales. Formats without blocks get
    normally distributed values."""
    fmt = get_format(format)
    kind = np.arange(n) % 16
    factor = np.select([kind == 3, kind == 7, kind == 11], [0.0, 1e-4, 100.0], 1.0)[:, None]
    if fmt.layout == "unquantized":
        return _unquantized(format, rng.standard_normal((n, k), dtype=np.float32) * factor)
    raw = rng.integers(0, 256, (n, fmt.blocks(k), fmt.nbytes), dtype=np.uint8)
    return _with_scales(format, raw, lambda: rng.uniform(0.002, 0.02, raw.shape[:2]) * factor)


def edge_blocks(format: str, n: int, k: int, rng: np.random.Generator) -> Raw:
    """Random valid rows whose scales are those of EDGES in turn, or the nearest that the format has. A second scale of
    a block is the next one of EDGES. Formats without blocks get values of that size."""
    fmt = get_format(format)
    turn = itertools.count()

    def scales() -> Scales:
        edges = np.array(EDGES)[(np.arange(n) + next(turn)) % len(EDGES)]
        return np.repeat(edges[:, None], fmt.blocks(k), axis=1)

    if fmt.layout == "unquantized":
        return _unquantized(format, rng.uniform(-1, 1, (n, k)) * scales())
    raw = rng.integers(0, 256, (n, fmt.blocks(k), fmt.nbytes), dtype=np.uint8)
    return _with_scales(format, raw, scales)


def _unquantized(format: str, values: Scales) -> Raw:
    raw = quants.quantize(values.astype(np.float32), GGMLQuantizationType[format])
    return np.ascontiguousarray(raw).view(np.uint8).reshape(len(values), -1)


def _with_scales(format: str, raw: Raw, scales: Callable[[], Scales]) -> Raw:
    """Blocks, uint8 [n, blocks, nbytes], as rows uint8 [n, row_nbytes]. Each scale of a block is replaced: one call of
    `scales`, which returns an array [n, blocks], for each."""
    if format in _OTHER_SCALES:
        _OTHER_SCALES[format](raw, scales())
    for plane in get_format(format).planes:
        if plane.name in ("d", "dm"):
            for at in range(plane.start, plane.stop, 2):
                raw[:, :, at : at + 2] = scales().astype(np.float16)[:, :, None].view(np.uint8)
    return raw.reshape(len(raw), -1)


def _iq1m_scales(raw: Raw, scales: Scales) -> None:
    """The scale is a float16 whose nibbles are the top nibbles of the last four 16-bit words of the block."""
    bits = scales.astype(np.float16).view(np.uint16)
    for i in range(4):
        raw[:, :, 49 + 2 * i] = (raw[:, :, 49 + 2 * i] & 15) | (((bits >> (4 * i)) & 15) << 4).astype(np.uint8)


def _mxfp4_scales(raw: Raw, scales: Scales) -> None:
    """The first byte of a block is the exponent of a power of two. Zero is no such scale: the quants become zero
    instead."""
    zero = scales == 0
    raw[:, :, 0] = np.rint(np.log2(np.where(zero, 1.0, np.abs(scales)))) + 128
    raw[zero, 1:] &= 0x88


def _nvfp4_scales(raw: Raw, scales: Scales) -> None:
    """The scales are four bytes with four bits of exponent and three of mantissa. As an integer such a byte is about
    eight times the logarithm of its value."""
    codes = np.log2(np.maximum(np.abs(scales), 1e-9)) * 8 + 64
    raw[:, :, :4] = np.clip(codes, scales != 0, 126)[:, :, None]


# formats whose scales are not a float16 field; every other byte of a block may have any value
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
