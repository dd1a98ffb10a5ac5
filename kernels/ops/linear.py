"""`linear` over packed weights: out[m, n] = sum over k of x[m, k] * W[n, k], as UOp.range kernels for opts to schedule.

The reduction is Ops.REDUCE over the ranges (block, chunk, word): with REDUCE every scheduler opt stays legal and
correct, where a hand-written register accumulator breaks under UPCAST and UNROLL.

Variants of a block format:
    dequant    sum of (scale*q - offset) * x
    factored   scale * sum(q*x) - offset * sum(x) a group, so that a scale costs one product a group, not one a weight
Both take `words`, the uint32 words of a chunk that one step reads, and `lanes`, the number of independent
accumulators: a compiler may not reorder a float sum, so lanes are what lets it use vector registers.
A format without blocks (F32, F16, BF16) has `dequant` alone, with `lanes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

from tinygrad import UOp, dtypes
from tinygrad.dtype import DType
from tinygrad.uop.ops import AxisType, Ops

from db.records import Workload
from kernels.formats import get_format
from kernels.unpack import Block, float32, get_layout, half

Params = dict[str, int]
LANES = (16, 8, 4, 2, 1)
WORDS = (8, 4, 2, 1)
DTYPES: dict[str, DType] = {"float32": dtypes.float32, "float16": dtypes.float16}


def block_params(w: Workload) -> tuple[Params, ...]:
    """Every (words, lanes) that the format of `w` allows, the widest first."""
    chunk_words = get_layout(w.format).words
    # a word brings at least one run of 4 quants: more lanes than that would stay empty
    return tuple(
        {"words": words, "lanes": lanes}
        for words in WORDS
        for lanes in LANES
        if chunk_words % words == 0 and lanes <= 4 * words
    )


def plain_params(w: Workload) -> tuple[Params, ...]:
    return tuple({"lanes": lanes} for lanes in LANES if w.k % lanes == 0)


def reduce_add(value: UOp, *ranges: UOp) -> UOp:
    return UOp(Ops.REDUCE, src=(value, *ranges), arg=(Ops.ADD, 0)) if ranges else value


def total(values: Sequence[UOp]) -> UOp:
    return reduce(add, values)


def step_sums(
    w: Workload, block: Block, chunk: UOp, words: Sequence[UOp], lanes: int, x: Callable[[UOp], UOp], factor: bool
) -> list[UOp]:
    """What one step adds to each lane's sum: the weights of `words` times x(column in the block), a float32."""
    layout = get_layout(w.format)
    groups = layout.groups(block, chunk)
    weighted: dict[tuple[int, int], list[UOp]] = {}
    inputs: dict[tuple[int, int], list[UOp]] = {}
    for at, word in enumerate(words):
        for run in layout.runs(block, chunk, word):
            for i, quant in enumerate(run.quants):
                key = ((4 * at + i) % lanes, run.group)
                weighted.setdefault(key, []).append(float32(quant))
                inputs.setdefault(key, []).append(x(run.start + i))
    sums: dict[int, list[UOp]] = {}
    for (lane, group), quants in weighted.items():
        scale, offset, xs = groups[group].scale, groups[group].offset, inputs[lane, group]
        if factor:
            value = scale * total([q * v for q, v in zip(quants, xs, strict=True)])
            value = value if offset is None else value - offset * total(xs)
        else:
            weights = [scale * q if offset is None else scale * q - offset for q in quants]
            value = total([weight * v for weight, v in zip(weights, xs, strict=True)])
        sums.setdefault(lane, []).append(value)
    return [total(sums[lane]) for lane in range(lanes)]


def _axis(size: int, number: int, ranges: list[UOp]) -> UOp:
    """A REDUCE range, or the constant 0 where there is nothing to loop over."""
    if size == 1:
        return UOp.const(0, dtypes.weakint)
    ranges.append(UOp.range(size, number, AxisType.REDUCE))
    return ranges[-1]


def _store(w: Workload, out: UOp, token: UOp, row: UOp, lanes: Sequence[UOp], ranges: Sequence[UOp]) -> UOp:
    value = total([reduce_add(lane, *ranges) for lane in lanes])
    return out[token, row].store(value.cast(DTYPES[w.out_dtype])).end(token, row)


def _blocked(w: Workload, params: Params, out: UOp, planes: Sequence[UOp], x: UOp, device: str, factor: bool) -> UOp:
    fmt, layout = get_format(w.format), get_layout(w.format)
    ranges: list[UOp] = []
    token, row = UOp.range(w.m, 0), UOp.range(w.n, 1)
    number = _axis(fmt.blocks(w.k), 2, ranges)
    chunk = _axis(layout.chunks, 3, ranges)
    step = _axis(layout.words // params["words"], 4, ranges)
    words = [step * params["words"] + i for i in range(params["words"])]
    block = Block({p.name: u for p, u in zip(fmt.planes, planes, strict=True)}, row, number, device)
    lanes = step_sums(
        w, block, chunk, words, params["lanes"], lambda col: float32(x[token, number * fmt.block + col]), factor
    )
    return _store(w, out, token, row, lanes, ranges)


def dequant(w: Workload, params: Params, out: UOp, planes: Sequence[UOp], x: UOp, device: str) -> UOp:
    return _blocked(w, params, out, planes, x, device, factor=False)


def factored(w: Workload, params: Params, out: UOp, planes: Sequence[UOp], x: UOp, device: str) -> UOp:
    return _blocked(w, params, out, planes, x, device, factor=True)


def plain(w: Workload, params: Params, out: UOp, planes: Sequence[UOp], x: UOp, device: str) -> UOp:
    lanes: list[UOp] = []
    ranges: list[UOp] = []
    token, row = UOp.range(w.m, 0), UOp.range(w.n, 1)
    step = _axis(w.k // params["lanes"], 2, ranges)
    for lane in range(params["lanes"]):
        column = step * params["lanes"] + lane
        weight = planes[0][row, column, 0]
        if w.format == "F16":
            weight = half(weight, device)
        elif w.format == "BF16":  # the top half of a float32
            weight = (weight.cast(dtypes.uint32) << 16).bitcast(dtypes.float32)
        lanes.append(float32(weight) * float32(x[token, column]))
    return _store(w, out, token, row, lanes, ranges)
