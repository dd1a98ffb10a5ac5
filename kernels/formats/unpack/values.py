"""IQ4_NL, IQ4_XS, MXFP4, NVFP4: each nibble is an index into a table of 16 values.

The values of MXFP4 and NVFP4 are those of a float with 4 bits (E2M1), doubled so that they are whole numbers. Their
scales are floats with 8 bits (E8M0 and unsigned E4M3), halved.
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from kernels.formats.unpack import Block, Group, Layout, Run, fields, float32, shifted

# nibble i is the doubled magnitude of E2M1 code i
_E2M1 = 0xC8643210


def _e2m1(word: UOp, high: int) -> tuple[UOp, ...]:
    """The doubled E2M1 numbers of the low or high nibbles of a word's bytes."""
    out = []
    for i in range(4):
        at = 8 * i + 4 * high
        # 4 times the low three bits of the code: the number of bits that its nibble of _E2M1 is shifted by
        four = (word << 2 if at == 0 else word >> (at - 2)) & 28
        magnitude = shifted(UOp.const(_E2M1, dtypes.uint32), four) & 15
        sign = (word << (28 - at)) & 0x80000000
        out.append((float32(magnitude).bitcast(dtypes.uint32) | sign).bitcast(dtypes.float32))
    return tuple(out)


def _mxfp4_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """The scale is 2 ** (e - 128): a float32 with the exponent e - 1, which is denormal where e is below 2."""
    e = block.e(0).cast(dtypes.uint32)
    bits = (e < 2).where((e + 1) << 21, (e - 1) << 23)
    return (Group(bits.bitcast(dtypes.float32), None),)


def _mxfp4_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    qs = block.qs(word)
    return tuple(Run(0, word * 4 + 16 * high, _e2m1(qs, high)) for high in (0, 1))


def _nvfp4_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """The bits of an E4M3 fit in the middle of a float16, whose exponent has one more bit and a bias larger by 8, and
    whose mantissa has seven more bits. The code 0x7F means NaN, which ggml takes for zero."""
    code = shifted(block.scales(0), chunk * 8) & 255
    scale = block.half_of((code & 127) << 7) * 128.0
    return (Group(code.ne(0x7F).where(scale, 0.0), None),)


def _nvfp4_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    """A chunk is 16 weights with one scale. Byte i of its eight bytes holds weights i and i + 8."""
    qs = block.qs(chunk * 2 + word)
    return tuple(Run(0, chunk * 16 + word * 4 + 8 * high, _e2m1(qs, high)) for high in (0, 1))


def _values(block: Block, word: UOp, high: int) -> tuple[UOp, ...]:
    return tuple(block.table("values", nibble.quant) for nibble in fields(word, 4 * high, 15))


def _iq4nl_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    return (Group(block.half("d", 0), None),)


def _iq4nl_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    qs = block.qs(word)
    return tuple(Run(0, word * 4 + 16 * high, _values(block, qs, high)) for high in (0, 1))


def _iq4xs_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """Scales have 6 bits and are stored plus 32: the low nibbles in scales_l, the two bits above them in scales_h."""
    low = shifted(block.scales_l(0), chunk * 4) & 15
    high = shifted(block.scales_h(0).cast(dtypes.uint32), chunk * 2) & 3
    return (Group(block.half("d", 0) * (float32(low | (high << 4)) - 32.0), None),)


def _iq4xs_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    qs = block.qs(chunk * 4 + word)
    return tuple(Run(0, chunk * 32 + word * 4 + 16 * high, _values(block, qs, high)) for high in (0, 1))


LAYOUTS = {
    "IQ4_NL": Layout(1, 4, _iq4nl_groups, _iq4nl_runs),
    "IQ4_XS": Layout(8, 4, _iq4xs_groups, _iq4xs_runs),
    "MXFP4": Layout(1, 4, _mxfp4_groups, _mxfp4_runs),
    "NVFP4": Layout(4, 2, _nvfp4_groups, _nvfp4_runs),
}
