"""`linear` with explicit structure: a warp of 32 lanes shares a row and sums across lanes with shuffles.

Opts cannot say this: GROUP ends in a store to shared memory and one thread that adds serially. So the structure is
fixed here, opts are (), and the search moves through the integer parameters instead:
    rows    output rows that one warp computes together, sharing its loads of x
    warps   warps in a thread block
    words   uint32 words of a chunk that a lane reads at a time
The lane is an AxisType.WARP range numbered -1: it stays whole and is the fastest thread index, which the shuffle needs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

from tinygrad import UOp, dtypes
from tinygrad.dtype import AddrSpace
from tinygrad.uop.ops import AxisType, Ops

from db.records import Workload
from kernels.formats import get_format
from kernels.ops.linear import DTYPES, WORDS, Params, step_sums
from kernels.unpack import Block, float32, get_layout

WARP = 32
MAX_TOKENS = 8
# how a backend adds a lane's value to that of the lane whose number differs in one bit
SHUFFLES = {
    "CUDA": "__shfl_xor_sync(0xffffffffu, {{0}}, {bit})",
    "NV": "__shfl_xor_sync(0xffffffffu, {{0}}, {bit})",
    "METAL": "simd_shuffle_xor({{0}}, {bit})",
}


def warp_params(w: Workload) -> tuple[Params, ...]:
    chunk_words = get_layout(w.format).words
    return tuple(
        {"rows": rows, "warps": warps, "words": words}
        for words in WORDS
        for rows in (1, 2, 4)
        for warps in (4, 8, 2, 1)
        if chunk_words % words == 0 and rows * w.m <= 16 and w.m <= MAX_TOKENS
    )


def steps(w: Workload, words: int) -> int:
    """Steps of a row, which the lanes of a warp share out; `words` must divide the words of a chunk."""
    layout = get_layout(w.format)
    return get_format(w.format).blocks(w.k) * layout.chunks * (layout.words // words)


def _warp_sum(value: UOp, shuffle: str) -> UOp:
    for bit in (16, 8, 4, 2, 1):
        value = value + UOp(Ops.CUSTOM, src=(value,), arg=shuffle.format(bit=bit), dtype=dtypes.float32)
    return value


def warp(w: Workload, params: Params, out: UOp, planes: Sequence[UOp], x: UOp, device: str) -> UOp:
    """`device` is the tinygrad device that the shuffle is written for."""
    rows, warps, words = params["rows"], params["warps"], params["words"]
    group = UOp.range(-(-w.n // (rows * warps)), 1, AxisType.GLOBAL)
    member = UOp.range(warps, 2, AxisType.LOCAL)
    lane = UOp.range(WARP, -1, AxisType.WARP)
    turn = UOp.range(-(-steps(w, words) // WARP), 3, AxisType.REDUCE)

    numbers = [(group * warps + member) * rows + r for r in range(rows)]
    whole = w.n % (rows * warps) == 0
    # rows past the last are computed from the last one's weights, but not stored
    safe = numbers if whole else [row.minimum(w.n - 1) for row in numbers]
    values = _step(w, words, turn * WARP + lane, safe, planes, x, device)
    sums = _accumulate(values, turn, (group, member, lane))
    stores = []
    for (row, token), value in zip(itertools.product(numbers, range(w.m)), sums, strict=True):
        stored = lane.eq(0) if whole else lane.eq(0) & (row < w.n)
        summed = _warp_sum(value, SHUFFLES[device])
        stores.append(out[token, row.valid(stored)].store(summed.cast(DTYPES[w.out_dtype])))
    return UOp.group(*stores).end(group, member, lane)


def _step(
    w: Workload, words: int, step: UOp, rows: Sequence[UOp], planes: Sequence[UOp], x: UOp, device: str
) -> list[UOp]:
    """What a lane adds in one step to the sum of each (row, token)."""
    fmt, layout = get_format(w.format), get_layout(w.format)
    count, steps_a_chunk = steps(w, words), layout.words // words
    # lanes past the last step redo it with x = 0
    inside = None if int(step.vmax) < count else step < count
    step = step if inside is None else step.minimum(count - 1)
    number = step // (layout.chunks * steps_a_chunk)
    chunk = step // steps_a_chunk % layout.chunks
    indices = [step % steps_a_chunk * words + i for i in range(words)]

    def read_x(token: int, column: UOp) -> UOp:
        value = float32(x[token, number * fmt.block + column])
        return value if inside is None else inside.where(value, 0.0)

    sums = []
    for row in rows:
        block = Block({p.name: u for p, u in zip(fmt.planes, planes, strict=True)}, row, number, device)
        for token in range(w.m):
            sums += step_sums(w, block, chunk, indices, 1, functools.partial(read_x, token), factor=True)
    return sums


def _accumulate(values: Sequence[UOp], turn: UOp, outside: tuple[UOp, ...]) -> list[UOp]:
    """Each value summed over `turn`, in a register of its own. Not Ops.REDUCE: a CUSTOM op, as the shuffle is one, is
    handed the array that a REDUCE ends up in instead of its number."""
    registers = UOp.placeholder((len(values),), dtypes.float32, slot=0, addrspace=AddrSpace.REG)
    start = registers.after(*outside)
    zeroed = registers.after(UOp.group(*[start[i].store(0.0) for i in range(len(values))]))
    inside = zeroed.after(turn)
    added = UOp.group(*[inside[i].store(inside[i].load() + value) for i, value in enumerate(values)]).end(turn)
    final = registers.after(added)
    return [final[i].load() for i in range(len(values))]
