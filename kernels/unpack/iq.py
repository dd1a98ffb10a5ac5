"""IQ1, IQ2 and IQ3: superblocks of 256 weights that are entries of a grid, a table of all the vectors that may occur.

A chunk is 32 weights, four octets; a word is one half of each octet: the table holds 4 weights of a grid's entry in a
uint32. In IQ2 and IQ3 these are magnitudes, a byte each, and each weight has a bit for its sign. In IQ1 an entry's
uint32 holds all 8 weights, a nibble each: 0, 1 or 2 for -1, 0 or 1, to which a group adds an eighth or subtracts it.
"""

from __future__ import annotations

from collections.abc import Callable

from tinygrad import UOp, dtypes

from kernels.unpack import Block, Group, Layout, Run, Runs, fields, float32, shifted


def sign_byte(index: UOp) -> UOp:
    """The 8 signs of an octet from the 7 bits that are stored: their number is even. 0x6996 is the parity of 0-15."""
    folded = (index ^ (index >> 4)) & 15
    parity = shifted(UOp.const(0x6996, dtypes.uint32), folded) & 1
    return index | (parity << 7)


def _flipped(value: UOp, signs: UOp, bit: int) -> UOp:
    """float32 of `value`, negated if that bit of `signs` is set."""
    sign = (signs << (31 - bit)) & 0x80000000
    return (float32(value).bitcast(dtypes.uint32) ^ sign).bitcast(dtypes.float32)


# (block, chunk, octet) -> what identifies the octet's entries, its signs (8 bits, more above them)
_Octet = Callable[[Block, UOp, int], tuple[UOp, UOp]]


def _signed_runs(octet: _Octet, item: Callable[[UOp, UOp], UOp], groups: int) -> Runs:
    """Runs of a signed grid; `item(entry, word)` is the item of the table that holds that half of the octet."""

    def runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
        out = []
        for i in range(4):
            entry, signs = octet(block, chunk, i)
            half = shifted(signs, word * 4)
            magnitudes = fields(block.table("grid", item(entry, word)), 0, 255)
            quants = tuple(_flipped(q, half, bit) for bit, q in enumerate(magnitudes))
            out.append(Run(i * groups // 4, chunk * 32 + i * 8 + word * 4, quants))
        return tuple(out)

    return runs


def _pair(entry: UOp, word: UOp) -> UOp:
    """Two items an entry, of a grid of octets."""
    return entry.cast(dtypes.int32) * 2 + word.cast(dtypes.int32)


def _iq2xxs_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    scale = block.qs(chunk * 2 + 1) >> 28
    return (Group(block.half("d", 0) * (float32(scale) * 0.25 + 0.125), None),)


def _iq2xxs_octet(block: Block, chunk: UOp, octet: int) -> tuple[UOp, UOp]:
    """Two words a chunk: a byte of index an octet; then 7 bits of signs an octet and 4 of scale."""
    entries, signs = block.qs(chunk * 2), block.qs(chunk * 2 + 1)
    return (entries >> (8 * octet)) & 255, sign_byte((signs >> (7 * octet)) & 127)


def _halves_of_16(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """IQ2_XS and IQ2_S: a group is 16 weights, its scale a nibble."""
    d, scales = block.half("d", 0), block.scales(chunk).cast(dtypes.uint32)
    return tuple(Group(d * (float32((scales >> (4 * i)) & 15) * 0.25 + 0.125), None) for i in (0, 1))


def _iq2xs_octet(block: Block, chunk: UOp, octet: int) -> tuple[UOp, UOp]:
    """16 bits an octet: 9 of index, 7 of signs."""
    both = block.qs(chunk * 2 + octet // 2) >> (16 * (octet % 2))
    return both & 511, sign_byte((both >> 9) & 127)


def _iq2s_octet(block: Block, chunk: UOp, octet: int) -> tuple[UOp, UOp]:
    """A byte of index, two more bits of it in qh, and a byte of signs."""
    low, high = (block.qs(chunk) >> (8 * octet)) & 255, block.qh(chunk).cast(dtypes.uint32)
    return low | (((high >> (2 * octet)) & 3) << 8), block.signs(chunk) >> (8 * octet)


def _iq3xxs_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    return (Group(block.half("d", 0) * (float32(block.signs(chunk) >> 28) * 0.5 + 0.25), None),)


def _iq3xxs_octet(block: Block, chunk: UOp, octet: int) -> tuple[UOp, UOp]:
    """Two bytes of index an octet, 7 bits of signs."""
    entries = block.qs(chunk * 2 + octet // 2) >> (16 * (octet % 2))
    return entries, sign_byte((block.signs(chunk) >> (7 * octet)) & 127)


def _iq3xxs_item(entries: UOp, word: UOp) -> UOp:
    return shifted(entries, word * 8) & 255


def _iq3s_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    scale = shifted(block.scales(0), chunk * 4) & 15
    return (Group(block.half("d", 0) * (float32(scale) * 2.0 + 1.0), None),)


def _iq3s_octet(block: Block, chunk: UOp, octet: int) -> tuple[UOp, UOp]:
    """Two bytes of index an octet, the ninth bits of both in qh, and a byte of signs. The ninth bits go above."""
    entries = (block.qs(chunk * 2 + octet // 2) >> (16 * (octet % 2))) & 0xFFFF
    ninths = block.qh(chunk).cast(dtypes.uint32) >> (2 * octet)
    return entries | (ninths << 16), block.signs(chunk) >> (8 * octet)


def _iq3s_item(entries: UOp, word: UOp) -> UOp:
    return (shifted(entries, word * 8) & 255) | ((shifted(entries, word + 16) & 1) << 8)


def _iq1_group(scale: UOp, negative: UOp) -> Group:
    """weight = scale * (quant - 1 + delta), delta an eighth."""
    return Group(scale, scale * negative.where(1.125, 0.875))


def _iq1s_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    qh = block.qh(chunk).cast(dtypes.uint32)
    scale = block.half("d", 0) * (float32((qh >> 12) & 7) * 2.0 + 1.0)
    return (_iq1_group(scale, qh >= 0x8000),)


def _iq1m_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """A scale of 3 bits for 16 weights, a delta for each 8. The 16 bits of d are the top nibbles of the scales' four
    16-bit words."""
    words = [block.scales(i) for i in (0, 1)]
    nibbles = [(words[i // 2] >> (16 * (i % 2) + 12)) & 15 for i in range(4)]
    d = block.half_of(nibbles[0] | (nibbles[1] << 4) | (nibbles[2] << 8) | (nibbles[3] << 12))
    scales = shifted(block.scales(chunk // 4), chunk // 2 % 2 * 16 + chunk % 2 * 6)
    qh = block.qh(chunk).cast(dtypes.uint32)
    values = [d * (float32((scales >> (3 * i)) & 7) * 2.0 + 1.0) for i in (0, 1)]
    return tuple(_iq1_group(values[i // 2], ((qh >> (4 * i)) & 8).ne(0)) for i in range(4))


def _iq1_runs(bits: int, groups: int) -> Runs:
    """An octet's index is a byte of qs below three bits of qh, which has `bits` an octet."""

    def runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
        qs, qh = block.qs(chunk), block.qh(chunk).cast(dtypes.uint32)
        out = []
        for i in range(4):
            entry = ((qs >> (8 * i)) & 255) | (((qh >> (bits * i)) & 7) << 8)
            weights = shifted(block.table("grid", entry), word * 16)
            quants = tuple((weights >> (4 * j)) & 3 for j in range(4))
            out.append(Run(i * groups // 4, chunk * 32 + i * 8 + word * 4, quants))
        return tuple(out)

    return runs


LAYOUTS = {
    "IQ1_S": Layout(8, 2, _iq1s_groups, _iq1_runs(bits=3, groups=1)),
    "IQ1_M": Layout(8, 2, _iq1m_groups, _iq1_runs(bits=4, groups=4)),
    "IQ2_XXS": Layout(8, 2, _iq2xxs_groups, _signed_runs(_iq2xxs_octet, _pair, groups=1)),
    "IQ2_XS": Layout(8, 2, _halves_of_16, _signed_runs(_iq2xs_octet, _pair, groups=2)),
    "IQ2_S": Layout(8, 2, _halves_of_16, _signed_runs(_iq2s_octet, _pair, groups=2)),
    "IQ3_XXS": Layout(8, 2, _iq3xxs_groups, _signed_runs(_iq3xxs_octet, _iq3xxs_item, groups=1)),
    "IQ3_S": Layout(8, 2, _iq3s_groups, _signed_runs(_iq3s_octet, _iq3s_item, groups=1)),
}
