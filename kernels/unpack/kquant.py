"""Q4_K and Q6_K: superblocks of 256 weights with 6-bit or 8-bit scales for groups of 32 or 16."""

from __future__ import annotations

from tinygrad import UOp, dtypes

from kernels.unpack import Block, Group, Layout, Run, float32, nibbles


def _q4k_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """Groups 2*chunk and 2*chunk + 1. Scales and minima are 6-bit: groups 0-3 in the low bits of bytes 0-3 and 4-7;
    of groups 4-7 the low nibbles are in bytes 8-11 and the top two bits above those of groups 0-3."""
    d, dmin = block.half("dm", 0), block.half("dm", 1)
    low = chunk < 2
    out = []
    for i in (0, 1):
        shift = ((chunk % 2) * 16 + 8 * i).cast(dtypes.uint32)
        b0, b1, b2 = ((block.scales(word) >> shift) & 255 for word in range(3))
        scale = low.where(b0 & 63, (b2 & 15) | ((b0 >> 6) << 4))
        minimum = low.where(b1 & 63, (b2 >> 4) | ((b1 >> 6) << 4))
        out.append(Group(d * float32(scale), dmin * float32(minimum)))
    return tuple(out)


def _q4k_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    qs = block.qs(chunk * 8 + word)
    return tuple(Run(high, chunk * 64 + 32 * high + word * 4, nibbles(qs, bool(high))) for high in (0, 1))


def _q6k_groups(block: Block, chunk: UOp) -> tuple[Group, ...]:
    """A chunk is (half, 16-column stripe): 4 groups of 16 weights, 32 columns apart. Quants are stored plus 32."""
    d = block.half("d", 0)
    scales = [d * float32(block.scales((chunk // 2) * 8 + chunk % 2 + 2 * g)) for g in range(4)]
    return tuple(Group(s, s * 32.0) for s in scales)


def _q6k_runs(block: Block, chunk: UOp, word: UOp) -> tuple[Run, ...]:
    half, stripe = chunk // 2, chunk % 2
    qh = block.qh(half * 8 + stripe * 4 + word)
    ql = [block.ql(half * 16 + stripe * 4 + word + 8 * i) for i in (0, 1)]
    runs = []
    for g in range(4):
        low = nibbles(ql[g % 2], g >= 2)
        quants = tuple(q | (((qh >> (8 * i + 2 * g)) & 3) << 4) for i, q in enumerate(low))
        runs.append(Run(g, half * 128 + g * 32 + stripe * 16 + word * 4, quants))
    return tuple(runs)


LAYOUTS = {
    "Q4_K": Layout(4, 8, _q4k_groups, _q4k_runs),
    "Q6_K": Layout(4, 4, _q6k_groups, _q6k_runs),
}
