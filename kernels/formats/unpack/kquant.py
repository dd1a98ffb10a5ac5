"""Q2_K to Q6_K: superblocks of 256 weights, with a small scale (and in Q2_K, Q4_K and Q5_K a minimum) for each group.

There are two shapes. Q4_K and Q5_K have groups of 32 weights: a chunk is 64 weights, of which 32 are the low nibbles of
its bytes and 32 the high nibbles. The other formats have groups of 16 weights: a chunk is a stripe of 16 columns in
each quarter of a half of the block, so that a word of quants holds 4 weights of each of the 4 groups of the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes

from kernels.formats.unpack import Block, Group, Layout, Quant, Run, fields, float32, shifted


def _groups_of_32(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """Groups 2*chunk and 2*chunk + 1. Scales and minima have 6 bits. Those of groups 0-3 are the low bits of bytes 0-3
    and 4-7. Of groups 4-7 the low nibbles are in bytes 8-11, and the top two bits are the top bits of bytes 0-3 and
    4-7. The code chooses between words, not between results: tinygrad makes a branch of the latter."""
    d, dmin = block.half("dm", 0), block.half("dm", 1)
    low, words = chunk < 2, [block.scales(word) for word in range(3)]
    below, above = (low.where(*(UOp.const(mask, dtypes.uint32) for mask in masks)) for masks in ((63, 15), (0, 48)))
    out = []
    for i in (0, 1):
        shift = (chunk % 2) * 16 + 8 * i
        scale, minimum = (
            (shifted(low.where(words[top], rest), shift) & below) | (shifted(words[top], shift + 2) & above)
            for top, rest in ((0, words[2]), (1, words[2] >> 4))
        )
        out.append(Group(d * float32(scale), dmin * float32(minimum)))
    return tuple(out)


def _q4k_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    qs = block.qs(chunk * 8 + word)
    return tuple(Run(high, chunk * 64 + 32 * high + word * 4, fields(qs, 4 * high, 15)) for high in (0, 1))


def _q5k_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    """The fifth bits of the quants of group g are bit g of the bytes of qh."""
    qs, qh = block.qs(chunk * 8 + word), shifted(block.qh(word), chunk * 2)
    runs = []
    for high in (0, 1):
        quants = ((qs >> (4 * high)) & 0x0F0F0F0F) | (((qh >> high) & 0x01010101) << 4)
        runs.append(Run(high, chunk * 64 + 32 * high + word * 4, fields(quants, 0, 255)))
    return tuple(runs)


def _striped(chunk: UOp, word: UOp, quarters: Sequence[tuple[Quant, ...]]) -> tuple[Run, ...]:
    start = (chunk // 2) * 128 + (chunk % 2) * 16 + word * 4
    return tuple(Run(g, start + 32 * g, quants) for g, quants in enumerate(quarters))


def _q2k_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """A group has a byte: the scale is its low nibble, the minimum its high nibble."""
    d, dmin = block.half("dm", 0), block.half("dm", 1)
    out = []
    for g in range(4):
        scales = shifted(block.scales(chunk // 2 * 2 + g // 2), (chunk % 2) * 8) >> (16 * (g % 2))
        out.append(Group(d * float32(scales & 15), dmin * float32((scales >> 4) & 15)))
    return tuple(out)


def _q2k_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    qs = block.qs(chunk // 2 * 8 + chunk % 2 * 4 + word)
    return _striped(chunk, word, [fields(qs, 2 * g, 3) for g in range(4)])


def _q3k_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """Scales have 6 bits and are stored plus 32. The low bits of scale i are the lower (i < 8) or upper nibble of byte
    i % 8; its two high bits start at bit i // 4 * 2 of byte 8 + i % 4. Quants are stored plus 4."""
    d, half, stripe = block.half("d", 0), chunk // 2 * 4, chunk % 2 * 8
    high = shifted(block.scales(2), half)
    out = []
    for pair in (0, 1):
        low = shifted(block.scales(pair), half) & 0x0F0F0F0F
        scales = shifted(low | (((high >> (2 * pair)) & 0x03030303) << 4), stripe)
        for byte in (0, 2):
            value = d * (float32((scales >> (8 * byte)) & 255) - 32.0)
            out.append(Group(value, value * 4.0))
    return tuple(out)


def _q3k_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    """The third bits of the i-th 32 columns are bit i of the bytes of hmask."""
    qs = block.qs(chunk // 2 * 8 + chunk % 2 * 4 + word)
    hmask = shifted(block.hmask(chunk % 2 * 4 + word), chunk // 2 * 4)
    quarters = [((qs >> (2 * g)) & 0x03030303) | (((hmask >> g) & 0x01010101) << 2) for g in range(4)]
    return _striped(chunk, word, [fields(q, 0, 255) for q in quarters])


def _q6k_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """Quants are stored plus 32."""
    d = block.half("d", 0)
    scales = [d * float32(block.scales((chunk // 2) * 8 + chunk % 2 + 2 * g)) for g in range(4)]
    return tuple(Group(s, s * 32.0) for s in scales)


def _q6k_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    half, stripe = chunk // 2, chunk % 2
    qh = block.qh(half * 8 + stripe * 4 + word)
    ql = [block.ql(half * 16 + stripe * 4 + word + 8 * i) for i in (0, 1)]
    quarters = [((ql[g % 2] >> (4 * (g // 2))) & 0x0F0F0F0F) | (((qh >> (2 * g)) & 0x03030303) << 4) for g in range(4)]
    return _striped(chunk, word, [fields(q, 0, 255) for q in quarters])


LAYOUTS = {
    "Q2_K": Layout(4, 4, _q2k_groups, _q2k_runs),
    "Q3_K": Layout(4, 4, _q3k_groups, _q3k_runs),
    "Q4_K": Layout(4, 8, _groups_of_32, _q4k_runs),
    "Q5_K": Layout(4, 8, _groups_of_32, _q5k_runs),
    "Q6_K": Layout(4, 4, _q6k_groups, _q6k_runs),
}
