"""What `linear` and its relatives share: each result is the dot product of a packed row with an input, then finished.

`Rows` says which rows meet which input and what becomes of the sums; `scheduled` builds it as a UOp.range kernel for
opts to schedule, `kernels.ops.linear.warp` with a warp a row. The reduction is Ops.REDUCE over the ranges (block,
chunk, word): with REDUCE every scheduler opt stays legal and correct, where a hand-written register accumulator breaks
under UPCAST and UNROLL.

Variants of a block format:
    dequant    sum of (scale*q - offset) * x
    factored   scale * sum(q*x) - offset * sum(x) a group, so that a scale costs one product a group, not one a weight
Both take `words`, the uint32 words of a chunk that one step reads, and `lanes`, the number of independent
accumulators: a compiler may not reorder a float sum, so lanes are what lets it use vector registers.
A format without blocks (F32, F16, BF16) has `dequant` alone; its words are single weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from tinygrad import UOp, dtypes

from kernels.formats import get_format
from kernels.formats.unpack import Block, Placed, float32, get_layout, half, in_place, number
from kernels.ops.op import WEIGHT, Args, Operand, Params
from kernels.tinygrad.uops import AxisType, Ops

LANES = (16, 8, 4, 2, 1)
WORDS = (8, 4, 2, 1)
Index = tuple[UOp, ...]
"""Where in the loops beside the rows: (token,), (token, slot) ..."""


@dataclass(frozen=True)
class Weight:
    """A packed weight [..., rows, k]: the operands `name`.<plane>. Kernel rows [start, stop) are its rows 0, 1, ...;
    stop None: all of them."""

    name: str
    format: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Rows:
    """A kernel over rows 0..n-1 and `loops` (their sizes).

    x(args, index, column): the input, float32. store(args, index, row, sums): stores what becomes of one row's sums,
    which are as `weights`, then the sum of squares(args, index, column)**2 over k if that is given. matrix(args,
    index): which of the stacked matrices of n rows. summed: a further loop, last in the index, that is summed over.
    """

    n: int
    k: int
    weights: tuple[Weight, ...]
    loops: tuple[int, ...]
    x: Callable[[Args, Index, UOp], UOp]
    store: Callable[[Args, Index, UOp, Sequence[UOp]], UOp]
    matrix: Callable[[Args, Index], UOp] | None = None
    summed: int = 1
    squares: Callable[[Args, Index, UOp], UOp] | None = None

    @property
    def formats(self) -> tuple[str, ...]:
        """Distinct formats in the order of their first weight: weights of one format share their loops."""
        return tuple(dict.fromkeys(w.format for w in self.weights))


def plain_x(args: Args, index: Index, column: UOp) -> UOp:
    """x [m, k] as it is."""
    return float32(args["x"][index[0], column])


def weight_operands(name: str, format: str, rows: int, k: int) -> tuple[Operand, ...]:
    """The planes of a packed weight [rows, k], then the format's tables."""
    fmt = get_format(format)
    shapes = [(a.name, a.shape(rows, fmt.blocks(k)), a.dtype) for a in fmt.arrays]
    return tuple(Operand(f"{name}.{field}", shape, getattr(dtypes, dtype), WEIGHT) for field, shape, dtype in shapes)


def is_plain(format: str) -> bool:
    return get_format(format).layout == "plain"


def row_params(formats: Sequence[str], k: int) -> tuple[Params, ...]:
    """Every (words, lanes) that all of the formats allow, the widest first."""
    if all(map(is_plain, formats)):
        return tuple({"lanes": lanes} for lanes in LANES if k % lanes == 0)
    # a word brings at least one run of 4 quants: more lanes than that would stay empty
    return tuple(
        {"words": words, "lanes": lanes}
        for words in WORDS
        for lanes in LANES
        if all(chunk_words(f, k) % words == 0 for f in formats)
        and lanes <= (words if any(map(is_plain, formats)) else 4 * words)
    )


def chunk_words(format: str, k: int) -> int:
    """Words of a chunk; a plain row is one chunk of single weights."""
    return k if is_plain(format) else get_layout(format).words


def reduce_add(value: UOp, *ranges: UOp) -> UOp:
    return UOp(Ops.REDUCE, src=(value, *ranges), arg=(Ops.ADD, 0)) if ranges else value


def total(values: Sequence[UOp]) -> UOp:
    return reduce(add, values)


@dataclass(frozen=True)
class Step:
    """Where one step reads: its block, its chunk of the block, and the words of the chunk. A plain format's block is
    one weight, and `words` are the weights' columns."""

    block: UOp
    chunk: UOp
    words: Sequence[UOp]


def step_sums(
    args: Args,
    weight: Weight,
    row: UOp,
    step: Step,
    lanes: int,
    x: Callable[[UOp], UOp],
    factor: bool,
    device: str,
    pinned: Callable[[UOp], UOp] | None = None,
) -> list[UOp]:
    """What one step adds to each lane's sum: the weights of `row` times x(column of the row), float32.

    pinned(value) is `value` computed once, for all that use it. With it quants are not shifted down one by one: what
    they are multiplied by is divided instead, once for all rows.
    """
    fmt = get_format(weight.format)
    arrays = {a.name: args[f"{weight.name}.{a.name}"] for a in fmt.arrays}
    if is_plain(weight.format):
        sums: dict[int, list[UOp]] = {}
        for i, column in enumerate(step.words):
            value = plain_weight(arrays["w"][row, column, 0], weight.format, device) * x(column)
            sums.setdefault(i % lanes, []).append(value)
        return [total(sums[lane]) for lane in range(lanes)]
    block = Block(arrays, row, step.block, device)
    return _block_sums(
        weight.format, block, step, lanes, lambda column: x(step.block * fmt.block + column), factor, device, pinned
    )


def plain_weight(weight: UOp, format: str, device: str) -> UOp:
    """An item of a format without blocks, float32."""
    if format == "F16":
        weight = half(weight, device)
    elif format == "BF16":  # the top half of a float32
        weight = (weight.cast(dtypes.uint32) << 16).bitcast(dtypes.float32)
    return float32(weight)


def _block_sums(
    format: str,
    block: Block,
    step: Step,
    lanes: int,
    x: Callable[[UOp], UOp],
    factor: bool,
    device: str,
    pinned: Callable[[UOp], UOp] | None,
) -> list[UOp]:
    layout = get_layout(format)
    groups = layout.groups(block, step.chunk)
    weighted: dict[tuple[int, int, int], list[tuple[UOp, UOp, UOp]]] = {}
    for at, word in enumerate(step.words):
        for run in layout.runs(block, step.chunk, word):
            for i, quant in enumerate(run.quants):
                placed = Placed(number(quant)) if pinned is None else in_place(quant, device)
                input_, power = x(run.start + i), min(placed.lift, _LIFT) - placed.bits
                scaled = pinned(input_ * 2.0**power) if pinned is not None and power else input_
                key = (4 * at + i) % lanes, run.group, max(placed.lift - _LIFT, 0)
                weighted.setdefault(key, []).append((placed.value, scaled, input_))
    sums: dict[int, list[UOp]] = {}
    for (lane, group, power), terms in weighted.items():
        scale, offset = groups[group].scale, groups[group].offset
        scale = scale * 2.0**power if power else scale
        if factor:
            value = scale * total([q * v for q, v, _ in terms])
            value = value if offset is None else value - offset * total([v for _, _, v in terms])
        else:
            weights = [scale * q if offset is None else scale * q - offset for q, _, _ in terms]
            value = total([weight * v for weight, (_, _, v) in zip(weights, terms, strict=True)])
        sums.setdefault(lane, []).append(value)
    return [total(sums[lane]) for lane in range(lanes)]


class _Ranges:
    """REDUCE ranges as they are needed; a loop of one is the constant 0."""

    def __init__(self) -> None:
        self.uops: list[UOp] = []

    def __call__(self, size: int, number: int) -> UOp:
        if size == 1:
            return UOp.const(0, dtypes.weakint)
        self.uops.append(UOp.range(size, number, AxisType.REDUCE))
        return self.uops[-1]


LOOP_NUMBERS = (0, 8, 9)
SUMMED_NUMBER = 7
_LIFT = 96  # the power of two that x is multiplied by at most, which leaves it 2**31 to be large in
SQUARES_NUMBER = 6
SQUARES = 8  # a step's, each with an accumulator


def _steps(format: str, k: int, params: Params, base: int, ranges: _Ranges) -> Step:
    """The loops over a row. They are numbered 2, 3, 4 for the first format, 12, 13, 14 for the second, ..."""
    if is_plain(format):
        words = params.get("words", params["lanes"])
        step = ranges(k // words, base)
        return Step(step, step, [step * words + i for i in range(words)])
    fmt, layout = get_format(format), get_layout(format)
    block, chunk = ranges(fmt.blocks(k), base), ranges(layout.chunks, base + 1)
    step = ranges(layout.words // params["words"], base + 2)
    return Step(block, chunk, [step * params["words"] + i for i in range(params["words"])])


def scheduled(r: Rows, params: Params, args: Args, device: str, factor: bool) -> UOp:
    """The kernel as loops: those of `r.loops` numbered 0, 8, 9, the row 1, then the summed ones."""
    loops = tuple(UOp.range(size, number) for size, number in zip(r.loops, LOOP_NUMBERS, strict=False))
    row = UOp.range(r.n, 1)
    sums: dict[str, UOp] = {}
    for i, format in enumerate(r.formats):
        ranges = _Ranges()
        index = loops if r.summed == 1 else (*loops, ranges(r.summed, SUMMED_NUMBER + 10 * i))
        step = _steps(format, r.k, params, 2 + 10 * i, ranges)
        columns = Columns(r, args, index)
        for weight in (w for w in r.weights if w.format == format):
            own = row_of(r, weight, args, index, row)
            lanes = step_sums(args, weight, own, step, params["lanes"], columns.x, factor, device)
            value = total([reduce_add(lane, *ranges.uops) for lane in lanes])
            sums[weight.name] = value if weight.stop is None else inside(weight, row).where(value, 0.0)
    results = [sums[w.name] for w in r.weights]
    if r.squares is not None:
        results.append(_sum_of_squares(r, args, loops))
    return r.store(args, loops, row, results).end(*loops, row)


def _sum_of_squares(r: Rows, args: Args, index: Index) -> UOp:
    """In a loop of its own, numbered 6: it does not depend on the row, so tinygrad would put one loop in two places."""
    assert r.squares is not None
    ranges = _Ranges()
    size = SQUARES if r.k % SQUARES == 0 else 1
    step = ranges(r.k // size, SQUARES_NUMBER)
    values = [r.squares(args, index, step * size + i) for i in range(size)]
    return total([reduce_add(v * v, *ranges.uops) for v in values])


class Columns:
    """The input of one step: remembers the columns that the weights read, to square each of them once. Where `valid`
    is false the input is 0."""

    def __init__(self, r: Rows, args: Args, index: Index, valid: UOp | None = None) -> None:
        self._r, self._args, self._index, self._valid = r, args, index, valid
        self._seen: dict[UOp, UOp] = {}

    def x(self, column: UOp) -> UOp:
        if column not in self._seen:
            self._seen[column] = self._masked(self._r.x(self._args, self._index, column))
        return self._seen[column]

    def squares(self) -> UOp:
        assert self._r.squares is not None
        values = [self._masked(self._r.squares(self._args, self._index, column)) for column in self._seen]
        return total([v * v for v in values])

    def _masked(self, value: UOp) -> UOp:
        return value if self._valid is None else self._valid.where(value, 0.0)


def inside(weight: Weight, row: UOp) -> UOp:
    """Whether a kernel row is one of a weight that has not all of them."""
    assert weight.stop is not None
    return (row >= weight.start) & (row < weight.stop)


def row_of(r: Rows, weight: Weight, args: Args, index: Index, row: UOp) -> UOp:
    """The weight's own row for a kernel row; for a row of another weight nothing is loaded."""
    if weight.stop is not None:
        return (row - weight.start).valid(inside(weight, row))
    return stacked(r, args, index, row)


def stacked(r: Rows, args: Args, index: Index, row: UOp) -> UOp:
    """A kernel row as one of all matrices' rows."""
    return row if r.matrix is None else r.matrix(args, index) * r.n + row
