"""Q2_K to Q6_K: superblocks of 256 weights, with a small scale (and in Q2_K, Q4_K and Q5_K a minimum) for each group.

Two shapes. Q4_K and Q5_K have groups of 32: a chunk is 64 weights, its low and its high nibbles. The others have groups
of 16: a chunk is (half, stripe), the 16 columns of a stripe in each quarter of a half, so that each word of quants
holds 4 weights of each of the chunk's 4 groups.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes

from kernels.formats.unpack import Block, Group, Layout, Quant, Run, fields, float32, shifted


def _groups_of_32(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """Groups 2*chunk and 2*chunk + 1. Scales and minima are 6-bit: groups 0-3 in the low bits of bytes 0-3 and 4-7;
    of groups 4-7 the low nibbles are in bytes 8-11 and the top two bits above those of groups 0-3. Words are chosen
    among, not results: of a choice between results tinygrad makes a branch."""
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
    """The fifth bits of group g are bits g of the bytes of qh."""
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
    """A byte a group: the scale's nibble, then the minimum's."""
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
    """6-bit scales stored plus 32: of scale i the low bits are the lower (i < 8) or upper nibble of byte i % 8, the two
    high bits start at bit i // 4 * 2 of byte 8 + i % 4. Quants are stored plus 4."""
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
    """The third bits of 32 columns are bit i of the bytes of hmask, i counting groups of 32."""
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
