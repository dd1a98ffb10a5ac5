"""Q4_0 to Q8_0: a block is one group of 32 weights. Byte i of formats with nibbles holds weights i and i + 16."""

from __future__ import annotations

from tinygrad import UOp

from kernels.formats.unpack import Block, Group, Groups, Layout, Run, fields, shifted, signed_bytes, spread


def _symmetric(middle: int | None) -> Groups:
    """The groups of a format that stores quants plus `middle` (None: signed quants)."""

    def groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
        d = block.half("d", 0)
        return (Group(d, None if middle is None else d * float(middle)),)

    return groups


def _groups_min(block: Block, chunk: UOp) -> tuple[Group, ...]:
    return (Group(block.half("dm", 0), -block.half("dm", 1)),)


def _runs_nibble(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    qs = block.qs(word)
    return tuple(Run(0, word * 4 + 16 * high, fields(qs, 4 * high, 15)) for high in (0, 1))


def _runs_5bit(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    qs, qh = block.qs(word), block.qh(0)
    runs = []
    for high in (0, 1):
        fifth = spread(shifted(qh, word * 4 + 16 * high))
        quants = fields(((qs >> (4 * high)) & 0x0F0F0F0F) | (fifth << 4), 0, 255)
        runs.append(Run(0, word * 4 + 16 * high, quants))
    return tuple(runs)


def _runs_byte(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    return (Run(0, word * 4, signed_bytes(block.qs(word))),)


LAYOUTS = {
    "Q4_0": Layout(1, 4, _symmetric(8), _runs_nibble),
    "Q4_1": Layout(1, 4, _groups_min, _runs_nibble),
    "Q5_0": Layout(1, 4, _symmetric(16), _runs_5bit),
    "Q5_1": Layout(1, 4, _groups_min, _runs_5bit),
    "Q8_0": Layout(1, 8, _symmetric(None), _runs_byte),
}
