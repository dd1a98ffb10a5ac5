"""Dot products of packed rows with an input: what all kernels of `linear` and its relatives share.

`RowDot` describes a kernel: which rows of which weights meet which input, and what is made of the sums. The variants
are in `kernels.ops.linear.loops`, `.warp` and `.tensor_core`. `step_sums` is what one step of the first two adds to a
sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinygrad import UOp, dtypes

from kernels.formats import get_format
from kernels.formats.unpack import BitcastQuant, Block, bitcast_quant, float32, get_layout, half, quant_value
from kernels.ops.kit.loops import total
from kernels.ops.op import WEIGHT, Args, Operand

WORDS = (8, 4, 2, 1)
_LIFT = 96  # x is multiplied by 2**_LIFT at most: an x of up to 2**31 does not overflow
Index = tuple[UOp, ...]
"""The indices in the loops besides the rows: (token,), (token, slot) ..."""


@dataclass(frozen=True)
class Weight:
    """A packed weight [..., rows, k], whose planes are the operands `name`.<plane>.

    Row `start` + i of the kernel is row i of the weight, up to row `stop`; stop None: every row of the kernel."""

    name: str
    format: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class RowDot:
    """A kernel that computes dot products over k columns, for `n` rows and every value of `loops`.

    weights   the weights whose rows are multiplied with x: a row has one sum for each weight
    loops     the sizes of the loops besides the rows: (tokens,), (tokens, slots)
    x         (args, index, column) -> the input, float32
    store     (args, index, row, sums) -> the store of what is made of a row's sums. `sums` has one sum for each weight,
              then the sum of squares where there is one
    matrix    (args, index) -> the index of the matrix of n rows, where weights are stacked matrices
    summed    the size of a further loop, last in the index, that is also summed over
    squares   (args, index, column) -> a value, float32, whose square is summed over the k columns
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
        """The distinct formats of the weights, in order. Weights of one format share their loops."""
        return tuple(dict.fromkeys(w.format for w in self.weights))


def given_x(args: Args, index: Index, column: UOp) -> UOp:
    """x [m, k] as it is given."""
    return float32(args["x"][index[0], column])


def weight_operands(name: str, format: str, rows: int, k: int) -> tuple[Operand, ...]:
    """The planes of a packed weight [rows, k], then the format's tables."""
    fmt = get_format(format)
    shapes = [(a.name, a.shape(rows, fmt.blocks(k)), a.dtype) for a in fmt.arrays]
    return tuple(Operand(f"{name}.{field}", shape, getattr(dtypes, dtype), WEIGHT) for field, shape, dtype in shapes)


def is_unquantized(format: str) -> bool:
    """Whether a format has no blocks: F32, F16, BF16."""
    return get_format(format).layout == "unquantized"


def chunk_words(format: str, k: int) -> int:
    """uint32 words of a chunk. A row without blocks counts as one chunk, whose words are single weights."""
    return k if is_unquantized(format) else get_layout(format).words


@dataclass(frozen=True)
class Step:
    """Where one step reads: the block of the row, the chunk of the block, and the words of the chunk. In a format
    without blocks `words` are the columns of the weights."""

    block: UOp
    chunk: UOp
    words: Sequence[UOp]


def step_sums(
    args: Args,
    weight: Weight,
    row: UOp,
    step: Step,
    accumulators: int,
    x: Callable[[UOp], UOp],
    factor: bool,
    device: str,
    pinned: Callable[[UOp], UOp] | None = None,
) -> list[UOp]:
    """What one step adds to each of the accumulators: the weights of `row` times x(column of the row), float32.

    factor    scale * sum(q * x) - offset * sum(x) for each group, else sum((scale * q - offset) * x)
    pinned    (value) -> the same value, computed once for all that use it. If it is given, quants are not shifted down
              one by one. Instead x is divided by the power of two, once for all rows.
    """
    fmt = get_format(weight.format)
    arrays = {a.name: args[f"{weight.name}.{a.name}"] for a in fmt.arrays}
    if is_unquantized(weight.format):
        sums: dict[int, list[UOp]] = {}
        for i, column in enumerate(step.words):
            value = unquantized_weight(arrays["w"][row, column, 0], weight.format, device) * x(column)
            sums.setdefault(i % accumulators, []).append(value)
        return [total(sums[accumulator]) for accumulator in range(accumulators)]
    block = Block(arrays, row, step.block, device)
    return _block_sums(
        weight.format,
        block,
        step,
        accumulators,
        lambda column: x(step.block * fmt.block + column),
        factor,
        device,
        pinned,
    )


def unquantized_weight(weight: UOp, format: str, device: str) -> UOp:
    """`weight`, an item of the plane of a format without blocks, as float32."""
    if format == "F16":
        weight = half(weight, device)
    elif format == "BF16":  # the top half of a float32
        weight = (weight.cast(dtypes.uint32) << 16).bitcast(dtypes.float32)
    return float32(weight)


def _block_sums(
    format: str,
    block: Block,
    step: Step,
    accumulators: int,
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
                placed = BitcastQuant(quant_value(quant)) if pinned is None else bitcast_quant(quant, device)
                input_, power = x(run.start + i), min(placed.lift, _LIFT) - placed.bits
                scaled = pinned(input_ * 2.0**power) if pinned is not None and power else input_
                key = (4 * at + i) % accumulators, run.group, max(placed.lift - _LIFT, 0)
                weighted.setdefault(key, []).append((placed.value, scaled, input_))
    sums: dict[int, list[UOp]] = {}
    for (accumulator, group, power), terms in weighted.items():
        scale, offset = groups[group].scale, groups[group].offset
        scale = scale * 2.0**power if power else scale
        if factor:
            value = scale * total([q * v for q, v, _ in terms])
            value = value if offset is None else value - offset * total([v for _, _, v in terms])
        else:
            weights = [scale * q if offset is None else scale * q - offset for q, _, _ in terms]
            value = total([weight * v for weight, (_, _, v) in zip(weights, terms, strict=True)])
        sums.setdefault(accumulator, []).append(value)
    return [total(sums[accumulator]) for accumulator in range(accumulators)]


class Columns:
    """The input of one step, 0 where `valid` is false. Remembers the columns that were read, to square each once."""

    def __init__(self, r: RowDot, args: Args, index: Index, valid: UOp | None = None) -> None:
        self._r, self._args, self._index, self._valid = r, args, index, valid
        self._seen: dict[UOp, UOp] = {}

    def x(self, column: UOp) -> UOp:
        if column not in self._seen:
            self._seen[column] = self._masked(self._r.x(self._args, self._index, column))
        return self._seen[column]

    def squares(self) -> UOp:
        """The sum of squares over the columns that were read."""
        assert self._r.squares is not None
        values = [self._masked(self._r.squares(self._args, self._index, column)) for column in self._seen]
        return total([v * v for v in values])

    def _masked(self, value: UOp) -> UOp:
        return value if self._valid is None else self._valid.where(value, 0.0)


def inside(weight: Weight, row: UOp) -> UOp:
    """Whether a row of the kernel belongs to `weight`, whose `stop` is given."""
    assert weight.stop is not None
    return (row >= weight.start) & (row < weight.stop)


def row_of(r: RowDot, weight: Weight, args: Args, index: Index, row: UOp) -> UOp:
    """The row of `weight` for a row of the kernel. Nothing is loaded for a row that belongs to another weight."""
    if weight.stop is not None:
        return (row - weight.start).valid(inside(weight, row))
    return stacked(r, args, index, row)


def stacked(r: RowDot, args: Args, index: Index, row: UOp) -> UOp:
    """A row of the kernel as a row of the stacked matrices."""
    return row if r.matrix is None else r.matrix(args, index) * r.n + row
