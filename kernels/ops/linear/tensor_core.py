"""Row kernels for tensor cores, as exact as float32 sums: each factor is split into parts that a tensor core takes.

Apple's tensor cores multiply float32. NVIDIA's take 16 bits: there a float32 v is the sum of two bfloat16 parts,

    high = bfloat16(v), low = bfloat16(v - high),  |v - high - low| <= 2^-16 |v|

and a product is x_high * w_high + x_low * w_high + x_high * w_low, each exact in float32; what is left out is at most
2^-16 of it, and of a sum of many products, whose errors are independent, about 4e-6. A bfloat16 has the exponents of a
float32: small and large numbers are no different. Beyond 3.38e38 a high part is infinity, and results NaN. A weight of
BF16 is its own high part, so that two products do. NVIDIA's GPUs before sm_80 multiply no bfloat16: TC does not apply.

tinygrad puts a kernel on tensor cores (OptOps.TC) where one sum is of one product, and takes 16 (Metal: 8) counts of
one loop at a time. So the sum is over two loops: which of the products, and a counter c that is a whole row's. c is not
the column: it says which word is read and which of the word's quants is meant, such that each thread unpacks words of
its own and nothing twice. On NVIDIA and Apple GPUs the counts that one thread holds differ in c % 2 and c // 8, threads
differ in c // 2 % 4:

    c // 2 % 4                      which of four consecutive words
    c % 2 + 2 * (c // 8 % 2)        which of a run of four quants; they are of consecutive columns
    c // 16 % runs                  which of the word's runs
    c // (16 * runs)                which four words

A format without blocks has words of one run of four weights. A count's quant is chosen among all of its word's, and its
part among the two. Once the loops are unrolled by `opts` these choices are constants and cost nothing, and products
share what they read, unpack and split; before, they are made for every count, which is slow and as right.

What an instruction gives is added as float32 where a loop is unrolled. Otherwise tinygrad has NVIDIA's tensor cores
add it up, which truncate. Without OptOps.TC a product would be rounded to bfloat16: the variant must not run without.
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
from kernels.ops.linear.dot import (
    RowDot,
    Weight,
    chunk_words,
    is_unquantized,
    stacked,
    unquantized_weight,
)
from kernels.ops.linear.loops import LOOP_NUMBERS
from kernels.ops.op import Args, KernelError, Params, Variant
from kernels.tinygrad.uops import AxisType

# Relative error ||out - ref|| / ||ref||: four times what is left out; a float16 output is rounded to 11 bits anyway
TOLERANCES = {("tc", "float32"): 2e-5}
_RUN = 4  # quants that c % 2 and c // 8 % 2 tell apart
_WORDS = 4  # words that c // 2 % 4 tells apart
_TOKENS, _ROWS = 16, 8  # a tile on NVIDIA GPUs; 8 and 8 on Apple's
PRODUCTS, COUNTS = "2", "3"
"""The summed loops."""


def variant(build: Callable[[Workload], RowDot]) -> Variant:
    """For an op whose kernels are RowDot of one weight; the first loop is that of the tokens."""
    return Variant(
        lambda w, params, args, device: tc(build(w), args, device),
        lambda w: tc_params(build(w)),
        lambda w, params: Needs(tensor_core=True),
        must="TC",
    )


def tc_params(r: RowDot) -> tuple[Params, ...]:
    """No parameters; not for few tokens, which would leave most of a tensor core empty, nor for a single row, which is
    no loop for TC to take."""
    return ({},) if r.loops[0] >= _TOKENS and r.n > 1 else ()


def runs(format: str) -> int:
    """Runs of four quants that a word yields; of a format without blocks 1."""
    if is_unquantized(format):
        return 1
    layout = get_layout(format)
    return get_format(format).block // (layout.chunks * layout.words * _RUN)


def depth(device: str) -> int:
    """How many counts of the sum one instruction of a device's tensor cores takes."""
    return _core(device).depth


def instructions(format: str, device: str) -> int:
    """Instructions of a tensor core for one tile that `opts` unroll."""
    return len(_products(format, device)) * _counts(format, device)


def opts(format: str, device: str, more: int = 1) -> tuple[Opt, ...]:
    """TC, and the unrolling that makes the choice of a quant and of a part a constant; `more` times of the counts."""
    products, counts = len(_products(format, device)), _counts(format, device) * more
    # TC numbers the triples of loops that it can take. Where only inputs have parts, the first is of PRODUCTS as tokens
    core = Opt("TC", 2 if products == 2 else 0, (-1, 0, 1))
    unrolls = Opt("UNROLL", None, products, PRODUCTS), Opt("UNROLL", None, counts, COUNTS)
    return (core, *(opt for opt in unrolls if opt.arg != 1))


def _counts(format: str, device: str) -> int:
    """What four words have, in counts of a tensor core."""
    return _RUN * _WORDS * runs(format) // depth(device)


def _core(device: str) -> TensorCore:
    core = backends.find(device).tensor_core
    if core is None:
        raise KernelError(f"no tensor cores are known on {device!r}")
    return core


def _products(format: str, device: str) -> tuple[tuple[int, int], ...]:
    """The parts of the weight and of the input that are multiplied, 0 the high ones."""
    if _core(device).float32:
        return ((0, 0),)
    return ((0, 0), (0, 1)) if format == "BF16" else ((0, 0), (0, 1), (1, 0))


def tc(r: RowDot, args: Args, device: str) -> UOp:
    """The kernel: loops 0 (token), 1 (row) and the summed ones, each of whole tiles of a tensor core; others from 8 on.

    Past the last token or row the last one is read again and nothing stored. OptOps.PADTO would do as well but for
    formats with tables, where tinygrad 0.14 then reads past a weight's end.
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
    """What a product takes of a float32, bfloat16: the high part or, where parts[which] is 1, the low."""
    high = value.cast(dtypes.bfloat16)
    if not any(parts):
        return high
    low = (value - high.cast(dtypes.float32)).cast(dtypes.bfloat16)
    return which.eq(parts.index(1)).where(low, high)


def _unquantized(
    r: RowDot, weight: Weight, args: Args, row: UOp, c: UOp, x: Callable[[UOp], UOp], device: str
) -> tuple[UOp, UOp]:
    """The weight and the input that the count c means, float32."""
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
    """As `_unquantized`."""
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
    """c % 2. That as such, or anywhere in an index, would have tinygrad split the loop in two before it sees any opt.
    So odd and even columns are two loads, one of which goes away."""
    return (c + 2) % 2


def _pick(index: UOp, values: Sequence[UOp]) -> UOp:
    """values[index], by halves."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return (index < half).where(_pick(index, values[:half]), _pick(index - half, values[half:]))
