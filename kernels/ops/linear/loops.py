"""Row kernels as plain loops, for opts to schedule.

The reduction is Ops.REDUCE over the loops (block, chunk, word): with REDUCE every opt of the scheduler stays legal and
correct, where a hand-written accumulator in a register breaks under UPCAST and UNROLL.

Variants of a format with blocks:
    dequant    the sum of (scale * q - offset) * x
    factored   scale * sum(q * x) - offset * sum(x) for each group: a scale costs one product a group, not one a weight
A format without blocks (F32, F16, BF16) has `dequant` alone, and its words are single weights. Parameters:
    words      uint32 words of a chunk that one step reads
    lanes      independent accumulators. A compiler may not reorder a sum of floats, so that it can use vector registers
               only where there are several
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp

from kernels.formats import get_format
from kernels.formats.unpack import get_layout
from kernels.ops.kit.loops import loop, reduce_add, total
from kernels.ops.linear.dot import (
    WORDS,
    Columns,
    Index,
    RowDot,
    Step,
    chunk_words,
    inside,
    is_unquantized,
    row_of,
    step_sums,
)
from kernels.ops.op import Args, Params

ACCUMULATORS = (16, 8, 4, 2, 1)
LOOP_NUMBERS = (0, 8, 9)
SUMMED_NUMBER = 7
SQUARES_NUMBER = 6
_SQUARES = 8  # columns of a step of the sum of squares, each with an accumulator


def row_params(formats: Sequence[str], k: int) -> tuple[Params, ...]:
    """Every choice of `words` and `lanes` (accumulators) that all of the formats allow, the widest first."""
    if all(map(is_unquantized, formats)):
        return tuple({"lanes": accumulators} for accumulators in ACCUMULATORS if k % accumulators == 0)
    # a word has at least one run of 4 quants; more accumulators than quants would stay empty
    return tuple(
        {"words": words, "lanes": accumulators}
        for words in WORDS
        for accumulators in ACCUMULATORS
        if all(chunk_words(f, k) % words == 0 for f in formats)
        and accumulators <= (words if any(map(is_unquantized, formats)) else 4 * words)
    )


def _steps(format: str, k: int, params: Params, base: int) -> tuple[Step, tuple[UOp, ...]]:
    """A step, and the loops over a row that it is in: numbers `base` (block), base + 1 (chunk), base + 2 (word)."""
    if is_unquantized(format):
        words = params.get("words", params["lanes"])
        step = loop(k // words, base)
        return Step(step, step, [step * words + i for i in range(words)]), (step,)
    fmt, layout = get_format(format), get_layout(format)
    block, chunk = loop(fmt.blocks(k), base), loop(layout.chunks, base + 1)
    step = loop(layout.words // params["words"], base + 2)
    columns = [step * params["words"] + i for i in range(params["words"])]
    return Step(block, chunk, columns), (block, chunk, step)


def loops(r: RowDot, params: Params, args: Args, device: str, factor: bool) -> UOp:
    """The kernel as loops: LOOP_NUMBERS are those of `r.loops`, 1 is the row. For the first format 2, 3 and 4 are
    block, chunk and word, 7 is the loop of `r.summed`; for the second format 12, 13, 14 and 17, and so on."""
    outer = tuple(UOp.range(size, number) for size, number in zip(r.loops, LOOP_NUMBERS, strict=False))
    row = UOp.range(r.n, 1)
    sums: dict[str, UOp] = {}
    for i, format in enumerate(r.formats):
        summed = () if r.summed == 1 else (loop(r.summed, SUMMED_NUMBER + 10 * i),)
        step, inner = _steps(format, r.k, params, 2 + 10 * i)
        index = (*outer, *summed)
        columns = Columns(r, args, index)
        for weight in (w for w in r.weights if w.format == format):
            own = row_of(r, weight, args, index, row)
            accumulators = step_sums(args, weight, own, step, params["lanes"], columns.x, factor, device)
            value = total([reduce_add(accumulator, *summed, *inner) for accumulator in accumulators])
            sums[weight.name] = value if weight.stop is None else inside(weight, row).where(value, 0.0)
    results = [sums[w.name] for w in r.weights]
    if r.squares is not None:
        results.append(_sum_of_squares(r, args, outer))
    return r.store(args, outer, row, results).end(*outer, row)


def _sum_of_squares(r: RowDot, args: Args, index: Index) -> UOp:
    """The sum of squares, in a loop of its own with the number 6. It does not depend on the row: if it shared a loop
    with the rows, tinygrad would put that loop in two places."""
    assert r.squares is not None
    size = _SQUARES if r.k % _SQUARES == 0 else 1
    step = loop(r.k // size, SQUARES_NUMBER)
    values = [r.squares(args, index, step * size + i) for i in range(size)]
    return total([reduce_add(v * v, step) for v in values])
