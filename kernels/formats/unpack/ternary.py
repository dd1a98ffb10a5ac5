"""TQ1_0, TQ2_0, Q1_0: weights with three values (-d, 0, d) or two (-d, d), and one scale a block."""

from __future__ import annotations

from tinygrad import UOp, dtypes

from kernels.formats.unpack import Block, Group, Layout, Run, fields, shifted


def _ternary_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """Quants are stored plus 1."""
    d = block.half("d", 0)
    return (Group(d, d),)


_EVEN = 0x00FF00FF


def _trits(word: UOp, count: int) -> list[tuple[UOp, ...]]:
    """The first `count` base-3 digits of each byte of a word: the first digits of all four bytes, then the second
    digits, and so on. A byte is a fraction of 256. Times 3, the digit is what overflows the 8 bits. One multiplication
    serves two bytes that are 16 bits apart."""
    even, odd = word & _EVEN, (word >> 8) & _EVEN
    out = []
    for _ in range(count):
        even, odd = even * 3, odd * 3
        out.append(tuple((pair >> shift) & 3 for shift in (8, 24) for pair in (even, odd)))
        even, odd = even & _EVEN, odd & _EVEN
    return out


def _tq1_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    """Digits i of the first 32 bytes are the weights from 32*i on, those of the next 16 bytes the weights from 160 +
    16*i on, and those of qh the weights from 240 + 4*i on. A chunk is two words of the 32 bytes, one word of the 16
    bytes, and digit `chunk` of qh."""
    out = []
    for half in (0, 1):
        digits = _trits(block.qs(chunk + 4 * half), 5)
        out += [Run(0, chunk * 4 + 16 * half + 32 * i, quants) for i, quants in enumerate(digits)]
    out += [Run(0, chunk * 4 + 160 + 16 * i, quants) for i, quants in enumerate(_trits(block.qs(chunk + 8), 5))]
    power = shifted(UOp.const(0x1B090301, dtypes.uint32), chunk * 8) & 255
    even, odd = (block.qh(0) & _EVEN) * power, ((block.qh(0) >> 8) & _EVEN) * power
    last = _trits((even & _EVEN) | ((odd & _EVEN) << 8), 1)
    return (*out, Run(0, chunk * 4 + 240, last[0]))


def _tq2_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    """The weights of quarter i of a half are bits 2*i and 2*i + 1 of each byte. A chunk is 16 columns of each quarter
    of a half."""
    qs, start = block.qs(chunk * 4 + word), chunk // 2 * 128 + chunk % 2 * 16 + word * 4
    return tuple(Run(0, start + 32 * i, fields(qs, 2 * i, 3)) for i in range(4))


def _binary_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    d = block.half("d", 0)
    return (Group(d * 2.0, d),)


def _binary_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    """A weight is one bit; the bits are in the order of the weights."""
    bits = shifted(block.qs(chunk), word * 4)
    return (Run(0, chunk * 32 + word * 4, tuple((bits >> i) & 1 for i in range(4))),)


LAYOUTS = {
    "TQ1_0": Layout(4, 1, _ternary_groups, _tq1_runs),
    "TQ2_0": Layout(4, 4, _ternary_groups, _tq2_runs),
    "Q1_0": Layout(4, 8, _binary_groups, _binary_runs),
}
