"""Row kernels for tensor cores: weights are unpacked to float16, multiplied with x as float16, summed in float32.

tinygrad puts a kernel on tensor cores (OptOps.TC) where one sum is of the product of two halves, and takes 16 (Metal:
8) counts of one loop at a time. So a whole row is one loop here. Its counter c is not the column: it says which word
is read and which of the word's quants is meant, such that each thread unpacks words of its own and nothing twice.
On NVIDIA and Apple GPUs the counts that one thread holds differ in c % 2 and c // 8, threads differ in c // 2 % 4:

    c // 2 % 4                      which of four consecutive words
    c % 2 + 2 * (c // 8 % 2)        which of a run of four quants; they are of consecutive columns
    c // 16 % runs                  which of the word's runs
    c // (16 * runs)                which four words

A count's quant is chosen among all of its word's. Once the loop is unrolled by `unrolled` that choice is a constant and
costs nothing; before, it is made for every count, which is slow and as right.

Without OptOps.TC such a product would be rounded to half: the variant must not run without. Inputs are divided by
SCALE, and sums multiplied by it: what a feed-forward makes of its gate may be large. A weight beyond 65504, or an input
beyond SCALE times that, becomes infinity and its results infinity or NaN, never a plausible number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinygrad import UOp, dtypes
from tinygrad.uop.ops import AxisType

from db.records import Workload
from kernels.formats import get_format
from kernels.op import Args, Params, Variant
from kernels.ops.rows import LOOP_NUMBERS, Rows, Weight, chunk_words, is_plain, plain_weight, reduce_add, stacked
from kernels.unpack import Block, get_layout, number

# tinygrad's devices with tensor cores, and its PYTHON device emulating them
DEVICES = frozenset({"CUDA", "NV", "METAL", "CUDA:PYTHON", "METAL:PYTHON"})
# Relative error ||out - ref|| / ||ref||. Rounding to 11 bits is off by 1.9e-4 (rms over a binade), of two factors by
# 2.6e-4, and so is a sum of many such products, whose errors are independent; a float16 output adds 1.9e-4 of its own.
# Rows of denormal scales need the margin that this leaves: their weights are denormal halves, and single elements are
# off by up to 2.1e-2 of their row (IQ1_M, of a single block; the validator takes eight tolerances, 2.4e-2).
TOLERANCES = {("tc", "float32"): 3e-3, ("tc", "float16"): 3e-3}
SCALE = 16.0  # a power of two; inputs below SCALE * 2^-14 lose digits, which a row of ordinary ones does not show
_RUN = 4  # quants that c % 2 and c // 8 % 2 tell apart
_WORDS = 4  # words that c // 2 % 4 tells apart
_TOKENS, _ROWS = 16, 8  # a tile on NVIDIA GPUs; 8 and 8 on Apple's


def variant(build: Callable[[Workload], Rows]) -> Variant:
    """For an op whose kernels are Rows of one weight; the first loop is that of the tokens."""
    return Variant(
        lambda w, params, args, device: tc(build(w), args, device),
        lambda w: tc_params(build(w)),
        DEVICES,
        must="TC",
    )


def tc_params(r: Rows) -> tuple[Params, ...]:
    """No parameters; not for few tokens, which would leave most of a tensor core empty, nor for a single row, which is
    no loop for TC to take."""
    return ({},) if r.loops[0] >= _TOKENS and r.n > 1 else ()


def runs(format: str) -> int:
    """Runs of four quants that a word yields; of a format without blocks 1."""
    if is_plain(format):
        return 1
    layout = get_layout(format)
    return get_format(format).block // (layout.chunks * layout.words * _RUN)


def unrolled(format: str, core_k: int) -> int:
    """How often to unroll the loop, after TC took `core_k` counts of it, for the choice of a quant to be a constant."""
    return 1 if is_plain(format) else _RUN * _WORDS * runs(format) // core_k


def tc(r: Rows, args: Args, device: str) -> UOp:
    """The kernel: loops 0 (token), 1 (row) and 2 (the sum), each of whole tiles of a tensor core; others from 8 on.

    Past the last token or row the last one is read again and nothing stored. OptOps.PADTO would do as well but for
    formats with tables, where tinygrad 0.14 then reads past a weight's end.
    """
    (weight,) = r.weights
    loops = UOp.range(_up(r.loops[0], _TOKENS), 0), UOp.range(_up(r.n, _ROWS), 1)
    others = tuple(UOp.range(size, number) for size, number in zip(r.loops[1:], LOOP_NUMBERS[1:], strict=False))
    index = (loops[0].minimum(r.loops[0] - 1), *others)
    row = stacked(r, args, index, loops[1].minimum(r.n - 1))
    count = _up(r.k, _RUN * _WORDS * runs(weight.format))
    c = UOp.range(count, 2, AxisType.REDUCE)
    read = _plain if is_plain(weight.format) else _packed
    value, x = read(r, weight, args, row, c, lambda column: r.x(args, index, column), device)
    if count != r.k:  # only of plain rows: a block is always a whole number of counts
        x = (c < r.k).where(x, 0.0)
    product = (x * (1 / SCALE)).cast(dtypes.half) * value.cast(dtypes.half)
    total = reduce_add(product.cast(dtypes.float32), c) * SCALE
    inside = [loop.valid(loop < size) for loop, size in zip(loops, (r.loops[0], r.n), strict=True)]
    return r.store(args, (inside[0], *others), inside[1], [total]).end(*loops, *others)


def _up(size: int, tile: int) -> int:
    return -(-size // tile) * tile


def _plain(
    r: Rows, weight: Weight, args: Args, row: UOp, c: UOp, x: Callable[[UOp], UOp], device: str
) -> tuple[UOp, UOp]:
    column = c.minimum(r.k - 1)
    return plain_weight(args[f"{weight.name}.w"][row, column, 0], weight.format, device), x(column)


def _packed(
    r: Rows, weight: Weight, args: Args, row: UOp, c: UOp, x: Callable[[UOp], UOp], device: str
) -> tuple[UOp, UOp]:
    """The weight and the input that the count c means, float32."""
    fmt, layout, words = get_format(weight.format), get_layout(weight.format), chunk_words(weight.format, r.k)
    a_word = runs(weight.format)
    word = c // (_RUN * _WORDS * a_word) * _WORDS + c // 2 % _WORDS
    chunk, at = word // words % layout.chunks, word // (words * layout.chunks)
    block = Block({a.name: args[f"{weight.name}.{a.name}"] for a in fmt.arrays}, row, at, device)
    groups = layout.groups(block, chunk)
    values, columns = [], []
    for run in layout.runs(block, chunk, word % words):
        assert len(run.quants) % _RUN == 0, f"{weight.format}: quants come in fours of consecutive columns"
        scale, offset = groups[run.group].scale, groups[run.group].offset
        scaled = [scale * number(quant) for quant in run.quants]
        values += scaled if offset is None else [s - offset for s in scaled]
        columns += [run.start + i for i in range(len(run.quants))]
    # `c % 2` as such, or anywhere in an index, would have tinygrad split the loop in two before it sees any opt. So
    # odd and even inputs are two loads, one of which goes away.
    odd, high, which = (c + 2) % 2, c // 8 % 2, c // 16 % a_word
    even = at * fmt.block + _pick(which, columns[::_RUN]) + high * 2
    value = _pick(odd + high * 2 + which * _RUN, values)
    return value, _pick(odd, [x(even), x(even + 1)])


def _pick(index: UOp, values: Sequence[UOp]) -> UOp:
    """values[index], by halves."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return (index < half).where(_pick(index, values[:half]), _pick(index - half, values[half:]))
