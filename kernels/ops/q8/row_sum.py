"""The dot product of a block of a weight with a block of quantised x, for each format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinygrad import UOp, dtypes

from kernels.ops.q8.vector import as_float, byte, dot, field, half, joined, text

Item = Callable[[str, int], UOp]
"""(plane, i) -> item i of that plane, of the rows of the tile."""
X = Callable[[int, int], UOp]
"""(group, word) -> the place of that word of a group of 32 columns, of a token."""


def block_sums(format: str, item: Item, xs: Sequence[X]) -> list[UOp]:
    """What a block adds to the sum of a row, float32, for each of several tokens."""
    return _FORMATS[format](item, xs)


def _sum_of_32(function: str, words: Sequence[UOp], x: X, group: int) -> UOp:
    """The product of 32 weights with a group of x, without scales, float32."""
    low, high = (dot(function, words[at : at + 4], x(group, at)) for at in (0, 4))
    return as_float(text("{0} + {1}", dtypes.int32, low, high))


def _block_of_32(function: str, words: list[UOp], xs: Sequence[X], c: str, *scales: UOp) -> list[UOp]:
    """The value of a block of 32 weights: {0} is the sum, {1} the group of x; then `scales`."""
    return [text(c, dtypes.float32, _sum_of_32(function, words, x, 0), x(0, 0), *scales) for x in xs]


def _nibbles(item: Item, first: int = 0) -> list[UOp]:
    return [field(item("qs", first + w), 4 * high, 15) for high in (0, 1) for w in range(4)]


def _fifths(item: Item) -> list[UOp]:
    """Quants of five bits, the fifth as `kernels.formats.tiles` places it."""
    qh = item("qh", 0)
    return [joined(low, field(qh, i, 1), 4) for i, low in enumerate(_nibbles(item))]


def _q4_0(item: Item, xs: Sequence[X]) -> list[UOp]:
    return _block_of_32(
        "v_dot5", _nibbles(item), xs, "{2} * (V_SCALE({1}) * {0} - 8.0f * V_SUM({1}))", half(item("d", 0))
    )


def _q4_1(item: Item, xs: Sequence[X]) -> list[UOp]:
    d, m = (half(item("dm", i)) for i in (0, 1))
    return _block_of_32("v_dot5", _nibbles(item), xs, "{2} * (V_SCALE({1}) * {0}) + {3} * V_SUM({1})", d, m)


def _q5_0(item: Item, xs: Sequence[X]) -> list[UOp]:
    return _block_of_32(
        "v_dot5", _fifths(item), xs, "{2} * (V_SCALE({1}) * {0} - 16.0f * V_SUM({1}))", half(item("d", 0))
    )


def _q5_1(item: Item, xs: Sequence[X]) -> list[UOp]:
    d, m = (half(item("dm", i)) for i in (0, 1))
    return _block_of_32("v_dot5", _fifths(item), xs, "{2} * (V_SCALE({1}) * {0}) + {3} * V_SUM({1})", d, m)


def _q8_0(item: Item, xs: Sequence[X]) -> list[UOp]:
    words = [item("qs", w) for w in range(8)]
    return _block_of_32(
        "v_dot8", words, xs, "{2} * (V_SCALE({1}) * {0} - (float)V_MIDDLE * V_SUM({1}))", half(item("d", 0))
    )


def _scaled_32(item: Item, xs: Sequence[X], words: Callable[[int], list[UOp]]) -> list[UOp]:
    """Q4_K and Q5_K: eight groups of 32 weights, each with a scale and a minimum of 6 bits. Those of groups 0..3 are
    the low bits of bytes 0..3 and 4..7. Of groups 4..7 the low four bits are in bytes 8..11, and the upper two are the
    top bits of bytes 0..7."""
    low, middle, last = (item("scales", i) for i in range(3))
    scales = field(low, 0, 63), joined(field(last, 0, 15), field(low, 6, 3), 4)
    minima = field(middle, 0, 63), joined(field(last, 4, 15), field(middle, 6, 3), 4)
    zero = UOp.const(0.0, dtypes.float32)
    sums, offsets = [zero for _ in xs], [zero for _ in xs]
    for g in range(8):
        scale, minimum, of_group = byte(scales[g // 4], g % 4), byte(minima[g // 4], g % 4), words(g)
        for i, x in enumerate(xs):
            product, at = _sum_of_32("v_dot5", of_group, x, g), x(g, 0)
            sums[i] = text("{0} + {1} * ({2} * V_SCALE({3}))", dtypes.float32, sums[i], product, scale, at)
            offsets[i] = text("{0} + {1} * V_SUM({2})", dtypes.float32, offsets[i], minimum, at)
    d, dmin = (half(item("dm", i)) for i in (0, 1))
    return [
        text("{0} * {1} - {2} * {3}", dtypes.float32, d, value, dmin, offset)
        for value, offset in zip(sums, offsets, strict=True)
    ]


def _q4_k(item: Item, xs: Sequence[X]) -> list[UOp]:
    return _scaled_32(item, xs, lambda g: [field(item("qs", g // 2 * 8 + w), g % 2 * 4, 15) for w in range(8)])


def _q5_k(item: Item, xs: Sequence[X]) -> list[UOp]:
    """The fifth bits of the quants of group g are bit g of the bytes of qh."""

    def words(g: int) -> list[UOp]:
        low = [field(item("qs", g // 2 * 8 + w), g % 2 * 4, 15) for w in range(8)]
        return [joined(word, field(item("qh", w), g, 1), 4) for w, word in enumerate(low)]

    return _scaled_32(item, xs, words)


_OFFSET = "{0} + ({1} * V_HALF_SUM({3}) + {2} * (V_SUM({3}) - V_HALF_SUM({3})))"


def _q6_k(item: Item, xs: Sequence[X]) -> list[UOp]:
    """Group g of 32 is quarter g % 4 of a half of the block. Its 16-byte parts have a scale each. Quants are stored
    plus 32: four bits in ql, where quarters 0 and 2 share bytes, as do 1 and 3, and two in qh, which all four share."""
    zero = UOp.const(0.0, dtypes.float32)
    sums, offsets = [zero for _ in xs], [zero for _ in xs]
    for g in range(8):
        half_, quarter = divmod(g, 4)
        words = []
        for w in range(8):
            low = field(item("ql", half_ * 16 + quarter % 2 * 8 + w), quarter // 2 * 4, 15)
            words.append(joined(low, field(item("qh", half_ * 8 + w), 2 * quarter, 3), 4))
        first, second = (as_float(item("scales", 2 * g + part)) for part in (0, 1))
        for i, x in enumerate(xs):
            front, back = (as_float(dot("v_dot6", words[at : at + 4], x(g, at))) for at in (0, 4))
            scaled = first, second, x(g, 0)
            sums[i] = text(
                "{0} + V_SCALE({5}) * ({1} * {3} + {2} * {4})", dtypes.float32, sums[i], front, back, *scaled
            )
            offsets[i] = text(_OFFSET, dtypes.float32, offsets[i], *scaled)
    d = half(item("d", 0))
    return [
        text("{0} * ({1} - 32.0f * {2})", dtypes.float32, d, value, offset)
        for value, offset in zip(sums, offsets, strict=True)
    ]


_FORMATS: dict[str, Callable[[Item, Sequence[X]], list[UOp]]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
