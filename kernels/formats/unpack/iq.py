"""IQ1, IQ2 and IQ3: superblocks of 256 weights that are entries of a grid, a table of all the vectors that may occur.

A block is 32 octets of consecutive weights, and a word is half an octet. In IQ2 and IQ3 an item of the table is a
uint32 whose bytes are the 4 magnitudes of half an octet; each weight has a bit for its sign. In IQ1 an item has all 8
weights of an octet, as nibbles: 0, 1 or 2 for -1, 0 or 1, to which the group adds or subtracts an eighth.

A chunk is a group. A step thus reads consecutive columns, and neighbouring steps read neighbouring columns: threads of
a GPU that read columns of x that were 32 apart took one and a half times as long.
"""

from __future__ import annotations

from collections.abc import Callable

from tinygrad import UOp, dtypes

from kernels.formats.unpack import Block, Group, Groups, Layout, Quant, Run, fields, float32, quant_value, shifted


def sign_byte(index: UOp) -> UOp:
    """The 8 signs of an octet from the 7 that are stored: the number of negative signs is even. Bit i of 0x6996 is the
    parity of i."""
    folded = (index ^ (index >> 4)) & 15
    parity = shifted(UOp.const(0x6996, dtypes.uint32), folded) & 1
    return index | (parity << 7)


def _flipped(value: Quant, signs: UOp, bit: int) -> UOp:
    """`value` as float32, negated if the bit with that number is set in `signs`."""
    sign = (signs << (31 - bit)) & 0x80000000
    return (quant_value(value).bitcast(dtypes.uint32) ^ sign).bitcast(dtypes.float32)


def _uint(value: UOp) -> UOp:
    return value.cast(dtypes.uint32)


# (block, octet, half of the octet) -> (item of the table, signs of the octet in the low 8 bits)
_Entry = Callable[[Block, UOp, UOp], tuple[UOp, UOp]]


def _signed(octets: int, groups: Groups, entry: _Entry) -> Layout:
    """The layout of a grid of magnitudes whose groups have `octets` octets each."""

    def runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
        octet, half = chunk * octets + word // 2, word % 2
        item, signs = entry(block, octet, half)
        magnitudes, signs = fields(block.table("grid", item), 0, 255), shifted(signs, half * 4)
        quants = tuple(_flipped(magnitude, signs, bit) for bit, magnitude in enumerate(magnitudes))
        return (Run(0, octet * 8 + half * 4, quants),)

    return Layout(32 // octets, octets * 2, groups, runs)


def _pair(entry: UOp, half: UOp) -> UOp:
    """The item of a grid with two items an entry: one for each half of an octet."""
    return entry.cast(dtypes.int32) * 2 + half.cast(dtypes.int32)


def _iq2xxs_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    return (Group(block.half("d", 0) * (float32(block.qs(chunk * 2 + 1) >> 28) * 0.25 + 0.125), None),)


def _iq2xxs_entry(block: Block, octet: UOp, half: UOp) -> tuple[UOp, UOp]:
    """Four octets have two words: the first holds a byte of index for each, the second 7 signs for each and the
    scale."""
    entries, signs = block.qs(octet // 4 * 2), block.qs(octet // 4 * 2 + 1)
    return _pair(shifted(entries, octet % 4 * 8) & 255, half), sign_byte(shifted(signs, octet % 4 * 7) & 127)


def _iq2_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """The scales of IQ2_XS and IQ2_S are nibbles."""
    scale = shifted(_uint(block.scales(chunk // 2)), chunk % 2 * 4) & 15
    return (Group(block.half("d", 0) * (float32(scale) * 0.25 + 0.125), None),)


def _iq2xs_entry(block: Block, octet: UOp, half: UOp) -> tuple[UOp, UOp]:
    """An octet has 16 bits: 9 of index and 7 signs."""
    both = _uint(block.qs(octet))
    return _pair(both & 511, half), sign_byte(both >> 9)


def _iq2s_entry(block: Block, octet: UOp, half: UOp) -> tuple[UOp, UOp]:
    """An octet has a byte of index in qs, two more bits of it in qh, and a byte of signs."""
    low = shifted(block.qs(octet // 4), octet % 4 * 8) & 255
    high = shifted(_uint(block.qh(octet // 4)), octet % 4 * 2) & 3
    return _pair(low | (high << 8), half), shifted(block.signs(octet // 4), octet % 4 * 8)


def _iq3xxs_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    return (Group(block.half("d", 0) * (float32(block.signs(chunk) >> 28) * 0.5 + 0.25), None),)


def _iq3_byte(block: Block, octet: UOp, half: UOp) -> UOp:
    """The byte of index of half an octet."""
    return shifted(block.qs(octet // 2), octet % 2 * 16 + half * 8) & 255


def _iq3xxs_entry(block: Block, octet: UOp, half: UOp) -> tuple[UOp, UOp]:
    """An octet has 7 signs. A word holds those of four octets and, above them, their scale."""
    return _iq3_byte(block, octet, half), sign_byte(shifted(block.signs(octet // 4), octet % 4 * 7) & 127)


def _iq3s_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    scale = shifted(block.scales(0), chunk * 4) & 15
    return (Group(block.half("d", 0) * (float32(scale) * 2.0 + 1.0), None),)


def _iq3s_entry(block: Block, octet: UOp, half: UOp) -> tuple[UOp, UOp]:
    """Half an octet has a ninth bit of index in qh, and an octet has a byte of signs."""
    ninth = shifted(_uint(block.qh(octet // 4)), octet % 4 * 2 + half) & 1
    return _iq3_byte(block, octet, half) | (ninth << 8), shifted(block.signs(octet // 4), octet % 4 * 8)


def _iq1_group(scale: UOp, negative: UOp) -> Group:
    """weight = scale * (quant - 1 + delta), where delta is -1/8 if `negative`, else 1/8."""
    return Group(scale, scale * negative.where(1.125, 0.875))


def _iq1_quants(block: Block, octet: UOp, half: UOp, high: UOp) -> tuple[UOp, ...]:
    """The quants of half an octet. Its index is a byte of qs, with the lowest three bits of `high` above it."""
    low = shifted(block.qs(octet // 4), octet % 4 * 8) & 255
    weights = shifted(block.table("grid", low | ((high & 7) << 8)), half * 16)
    return tuple((weights >> (4 * i)) & 3 for i in range(4))


def _iq1s_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    qh = _uint(block.qh(chunk))
    scale = block.half("d", 0) * (float32((qh >> 12) & 7) * 2.0 + 1.0)
    return (_iq1_group(scale, qh >= 0x8000),)


def _iq1s_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    octet, half = chunk * 4 + word // 2, word % 2
    quants = _iq1_quants(block, octet, half, shifted(_uint(block.qh(chunk)), word // 2 * 3))
    return (Run(0, octet * 8 + half * 4, quants),)


def _iq1m_octets(block: Block, chunk: UOp) -> tuple[UOp, UOp]:
    """The nibbles of the two octets of a chunk: three bits of index, and the sign of delta above them."""
    qh = shifted(_uint(block.qh(chunk // 2)), chunk % 2 * 8)
    return qh, qh >> 4


def _iq1m_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """A chunk has one scale of 3 bits and two deltas. The 16 bits of d are the top nibbles of the four 16-bit words of
    scales."""
    words = [block.scales(i) for i in (0, 1)]
    nibbles = [(words[i // 2] >> (16 * (i % 2) + 12)) & 15 for i in range(4)]
    d = block.half_of(nibbles[0] | (nibbles[1] << 4) | (nibbles[2] << 8) | (nibbles[3] << 12))
    scale = shifted(block.scales(chunk // 8), chunk // 4 % 2 * 16 + chunk % 4 * 3) & 7
    value = d * (float32(scale) * 2.0 + 1.0)
    return tuple(_iq1_group(value, (high & 8).ne(0)) for high in _iq1m_octets(block, chunk))


def _iq1m_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    """A word has one half of each of the two octets."""
    both = enumerate(_iq1m_octets(block, chunk))
    quants = [_iq1_quants(block, chunk * 2 + i, word, high) for i, high in both]
    return tuple(Run(i, chunk * 16 + i * 8 + word * 4, q) for i, q in enumerate(quants))


LAYOUTS = {
    "IQ1_S": Layout(8, 8, _iq1s_groups, _iq1s_runs),
    "IQ1_M": Layout(16, 2, _iq1m_groups, _iq1m_runs),
    "IQ2_XXS": _signed(4, _iq2xxs_groups, _iq2xxs_entry),
    "IQ2_XS": _signed(2, _iq2_groups, _iq2xs_entry),
    "IQ2_S": _signed(2, _iq2_groups, _iq2s_entry),
    "IQ3_XXS": _signed(4, _iq3xxs_groups, _iq3xxs_entry),
    "IQ3_S": _signed(4, _iq3s_groups, _iq3s_entry),
}
