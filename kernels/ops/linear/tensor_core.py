"""Row kernels for tensor cores, as exact as sums of float32: each factor is split into parts that a tensor core takes.

Apple's tensor cores multiply float32. NVIDIA's multiply 16-bit numbers, so that a float32 v becomes two bfloat16 parts:

    high = bfloat16(v), low = bfloat16(v - high),  |v - high - low| <= 2^-16 |v|

A product is x_high * w_high + x_low * w_high + x_high * w_low, and each term is exact in float32. What is left out is
at most 2^-16 of the product, and about 4e-6 of a sum of many products, whose errors are independent. bfloat16 has the
exponents of float32, so that this holds for small and for large numbers. Above 3.38e38 the high part is infinity, and
the result NaN. A weight of BF16 is its own high part: then two terms are enough. NVIDIA's GPUs before sm_80 cannot
multiply bfloat16, and there TC does not apply.

tinygrad puts a kernel on tensor cores (OptOps.TC) if a sum is over one product. An instruction takes 16 (Metal: 8)
values of one loop. So the sum has two loops: over the terms above, and over a counter c with as many values as a row
has columns. c is not the column. It says which word is read, and which quant of the word is meant, such that each
thread unpacks words of its own and none twice. On NVIDIA and Apple GPUs the values of c that one thread holds differ in
c % 2 and c // 8, and those of different threads in c // 2 % 4. The meaning of c:

    c // 2 % 4                      the word among four consecutive words
    c % 2 + 2 * (c // 8 % 2)        the quant in a run of four quants, which are of consecutive columns
    c // 16 % runs                  the run in the word
    c // (16 * runs)                the group of four words

A format without blocks has words of one run of four weights. The kernel chooses a quant among all quants of its word,
and a part among the two. Once `opts` has unrolled the loops these choices are constants and cost nothing, and products
share what is read, unpacked and split. Without unrolling the results are the same, but each choice is made at run time.

Where a loop is unrolled, the results of instructions are added as float32. Otherwise NVIDIA's tensor cores add them,
and truncate. Without OptOps.TC a product would be rounded to bfloat16, so that the variant must not run without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinygrad import UOp, dtypes

from db.records import Opt, Workload
from kernels import backends
from kernels.backends import Needs, TensorCore
from kernels.formats import get_format
from kernels.formats.unpack import Block, get_layout, quant_value
from kernels.ops.kit.loops import reduce_add
from kernels.ops.linear.dot import RowDot, Weight, chunk_words, is_unquantized, stacked, unquantized_weight
from kernels.ops.linear.loops import LOOP_NUMBERS
from kernels.ops.op import Args, KernelError, Params, Variant
from kernels.tinygrad.uops import AxisType

# The relative error ||out - ref|| / ||ref|| may be four times what is left out. Float16 outputs need no limit of their
# own: they are rounded to 11 bits.
TOLERANCES = {("tc", "float32"): 2e-5}
_RUN = 4  # quants of a run: c % 2 and c // 8 % 2 say which
_WORDS = 4  # words of a group: c // 2 % 4 says which
_TOKENS, _ROWS = 16, 8  # the size of a tile on NVIDIA GPUs; Apple's have 8 and 8
PRODUCTS, COUNTS = "2", "3"
"""The numbers of the loops that are summed over: the terms of a product, and c."""


def variant(build: Callable[[Workload], RowDot]) -> Variant:
    """The variant for an op whose RowDot has one weight, and whose first loop is over tokens."""
    return Variant(
        lambda w, params, args, device: tc(build(w), args, device),
        lambda w: tc_params(build(w)),
        lambda w, params: Needs(tensor_core=True),
        must="TC",
    )


def tc_params(r: RowDot) -> tuple[Params, ...]:
    """The variant has no integer parameters. It is not for few tokens, which would leave most of a tensor core empty,
    nor for a single row, which makes no loop that TC could take."""
    return ({},) if r.loops[0] >= _TOKENS and r.n > 1 else ()


def runs(format: str) -> int:
    """Number of runs of four quants in a word; 1 for a format without blocks."""
    if is_unquantized(format):
        return 1
    layout = get_layout(format)
    return get_format(format).block // (layout.chunks * layout.words * _RUN)


def depth(device: str) -> int:
    """Number of values of c that one instruction of a tensor core takes."""
    return _core(device).depth


def instructions(format: str, device: str) -> int:
    """Number of instructions for one tile in the loop body that `opts` makes."""
    return len(_products(format, device)) * _counts(format, device)


def opts(format: str, device: str, more: int = 1) -> tuple[Opt, ...]:
    """The opts TC and UNROLL that make the choice of a quant and of a part a constant. more: how many times the least
    number of values of c to unroll."""
    products, counts = len(_products(format, device)), _counts(format, device) * more
    # TC numbers the triples of loops that it can take. Where only x has parts, the first ones take PRODUCTS for the
    # tokens
    core = Opt("TC", 2 if products == 2 else 0, (-1, 0, 1))
    unrolls = Opt("UNROLL", None, products, PRODUCTS), Opt("UNROLL", None, counts, COUNTS)
    return (core, *(opt for opt in unrolls if opt.arg != 1))


def _counts(format: str, device: str) -> int:
    """Number of instructions that take all quants of four words."""
    return _RUN * _WORDS * runs(format) // depth(device)


def _core(device: str) -> TensorCore:
    core = backends.find(device).tensor_core
    if core is None:
        raise KernelError(f"no tensor cores are known on {device!r}")
    return core


def _products(format: str, device: str) -> tuple[tuple[int, int], ...]:
    """(part of the weight, part of x) for each term of a product: 0 is the high part, 1 the low one."""
    if _core(device).float32:
        return ((0, 0),)
    return ((0, 0), (0, 1)) if format == "BF16" else ((0, 0), (0, 1), (1, 0))


def tc(r: RowDot, args: Args, device: str) -> UOp:
    """The kernel. Loops 0 (token), 1 (row) and the summed ones cover whole tiles of a tensor core; others are numbered
    from 8 on.

    Indices beyond the last token or row are clamped to the last one, and nothing is stored for them. OptOps.PADTO would
    do the same, but in formats with tables tinygrad 0.14 then reads beyond the end of a weight.
    """
    (weight,) = r.weights
    loops = UOp.range(_up(r.loops[0], _TOKENS), 0), UOp.range(_up(r.n, _ROWS), 1)
    others = tuple(UOp.range(size, number) for size, number in zip(r.loops[1:], LOOP_NUMBERS[1:], strict=False))
    index = (loops[0].minimum(r.loops[0] - 1), *others)
    row = stacked(r, args, index, loops[1].minimum(r.n - 1))
    products = _products(weight.format, device)
    count = _up(r.k, _RUN * _WORDS * runs(weight.format))
    which, c = UOp.range(len(products), int(PRODUCTS), AxisType.REDUCE), UOp.range(count, int(COUNTS), AxisType.REDUCE)
    read = _unquantized if is_unquantized(weight.format) else _quantized
    factors = read(r, weight, args, row, c, lambda column: r.x(args, index, column), device)
    if not _core(device).float32:
        factors = tuple(_part(v, which, [p[i] for p in products]) for i, v in enumerate(factors))
    value, x = factors
    product = reduce_add((x * value).cast(dtypes.float32), c, *([which] if len(products) > 1 else []))
    inside = [loop.valid(loop < size) for loop, size in zip(loops, (r.loops[0], r.n), strict=True)]
    return r.store(args, (inside[0], *others), inside[1], [product]).end(*loops, *others)


def _up(size: int, tile: int) -> int:
    return -(-size // tile) * tile


def _part(value: UOp, which: UOp, parts: Sequence[int]) -> UOp:
    """The part of a float32 that the term `which` takes, bfloat16: the low part where parts[which] is 1, else the
    high."""
    high = value.cast(dtypes.bfloat16)
    if not any(parts):
        return high
    low = (value - high.cast(dtypes.float32)).cast(dtypes.bfloat16)
    return which.eq(parts.index(1)).where(low, high)


def _unquantized(
    r: RowDot, weight: Weight, args: Args, row: UOp, c: UOp, x: Callable[[UOp], UOp], device: str
) -> tuple[UOp, UOp]:
    """The weight and the x that c means, float32."""
    whole = r.k % (_RUN * _WORDS) == 0
    even = c // (_RUN * _WORDS) * (_RUN * _WORDS) + c // 2 % _WORDS * _RUN + c // 8 % 2 * 2

    def weight_at(column: UOp) -> UOp:
        at = column if whole else column.minimum(r.k - 1)
        return unquantized_weight(args[f"{weight.name}.w"][row, at, 0], weight.format, device)

    def x_at(column: UOp) -> UOp:
        return x(column) if whole else (column < r.k).where(x(column.minimum(r.k - 1)), 0.0)

    value, input_ = (_pick(_odd(c), [at(even), at(even + 1)]) for at in (weight_at, x_at))
    return value, input_


def _quantized(
    r: RowDot, weight: Weight, args: Args, row: UOp, c: UOp, x: Callable[[UOp], UOp], device: str
) -> tuple[UOp, UOp]:
    """The same as `_unquantized`, for a format with blocks."""
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
        scaled = [scale * quant_value(quant) for quant in run.quants]
        values += scaled if offset is None else [s - offset for s in scaled]
        columns += [run.start + i for i in range(len(run.quants))]
    odd, high, which = _odd(c), c // 8 % 2, c // 16 % a_word
    even = at * fmt.block + _pick(which, columns[::_RUN]) + high * 2
    value = _pick(odd + high * 2 + which * _RUN, values)
    return value, _pick(odd, [x(even), x(even + 1)])


def _odd(c: UOp) -> UOp:
    """c % 2, spelled so that tinygrad does not split the loop over c in two before it applies any opt. It would also do
    so if this were part of an index: hence even and odd columns are two loads, one of which is dropped after
    unrolling."""
    return (c + 2) % 2


def _pick(index: UOp, values: Sequence[UOp]) -> UOp:
    """values[index], chosen by repeated halving."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return (index < half).where(_pick(index, values[:half]), _pick(index - half, values[half:]))
