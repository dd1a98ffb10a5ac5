"""Dot products of tiled rows with quantised activations: what all kernels over int8 share.

A kernel computes TILE rows side by side, in vector lanes, for `tokens` tokens that share what is unpacked of the
weights. The value of a block is made by a C function, and blocks are added one after the other, so that a result does
not depend on how many tokens were computed together. A kernel takes no opts: its vectors
and its slices, which threads share out among themselves, are loops that it makes itself. Parameters:
    tokens    how many are computed together
    slices    of the tiles
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.backends import Needs
from kernels.formats import get_format
from kernels.formats.tiles import TILE, tiled_shape, tiles
from kernels.ops.kit.loops import loop, reduce_add
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.op import INPUT, WEIGHT, Args, Op, Operand, Params, Variant
from kernels.ops.q8 import defaults
from kernels.ops.q8.spec import BLOCK, q8_shape
from kernels.ops.q8.vector import call, outer, ranges, slice_counts, sliced, text
from kernels.ops.spec import Spec
from kernels.tinygrad.prelude import BLOCKS
from kernels.tinygrad.uops import AxisType

Index = tuple[UOp, UOp]
"""(token, slot)"""
TOKENS = (8, 4, 2, 1)
_SUMMED_NUMBER, _BLOCK_NUMBER = 6, 7


@dataclass(frozen=True)
class TileDot:
    """A kernel that computes dot products over k columns, for `n` rows, `tokens` tokens and `slots` slots of each.

    weights  (operand, format) of the weights whose rows are multiplied with x: a row has one sum for each
    x        (index) -> the row of x, and its first block
    value    (args, index, row, sums) -> what is stored, float32; `sums` has one for each weight
    out      (index) -> the indices of the output but for the row
    matrix   (args, index) -> the index of the matrix of n rows, where weights are stacked
    shared   whether tokens use the same matrix
    summed   the number of slots that are summed over, each multiplied by `share`(args, index) before
    """

    n: int
    k: int
    weights: tuple[tuple[str, str], ...]
    tokens: int
    x: Callable[[Index], tuple[UOp, UOp]]
    value: Callable[[Args, Index, UOp, Sequence[UOp]], UOp]
    out: Callable[[Index], tuple[UOp, ...]]
    slots: int = 1
    matrix: Callable[[Args, Index], UOp] | None = None
    shared: bool = True
    summed: int = 1
    share: Callable[[Args, Index], UOp] | None = None

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(format for _, format in self.weights))


def x_operand(rows: int, k: int) -> Operand:
    return Operand("x", q8_shape(rows, k), dtypes.int32, INPUT)


def tiled_operands(name: str, format: str, matrices: int, n: int, k: int) -> tuple[Operand, ...]:
    """The tiled planes of `matrices` stacked weights [n, k]."""
    fmt = get_format(format)
    return tuple(
        Operand(f"{name}.{p.name}", tiled_shape(p, matrices, n, fmt.blocks(k)), getattr(dtypes, p.dtype), WEIGHT)
        for p in fmt.planes
    )


def tile_op(
    spec: type[Spec],
    build: Callable[[Workload], TileDot],
    operands: Callable[[Workload], tuple[Operand, ...]],
    products: Callable[[Workload], int],
    nbytes: Callable[[Workload], int] | None = None,
) -> Op:
    """An op whose kernels are each described by a TileDot, which `build` makes of a workload."""

    def variants(w: Workload) -> dict[str, Variant]:
        build(w)
        kernel = Variant(
            lambda w, p, args, device: _kernel(build(w), p, args),
            lambda w: _params(build(w)),
            lambda w, p: Needs(prelude=True),
            schedulable=False,
        )
        return {"tiles": kernel}

    return Op(
        spec=spec,
        variants=variants,
        operands=operands,
        default_schedules=lambda w, found, device: defaults.tiles(w, operands(w), found["tiles"].params(w)),
        module=build.__module__,
        products=products,
        formats=lambda w: build(w).formats,
        heuristic_baselines=lambda w: defaults.untuned("tiles", tokens=1),
        nbytes=nbytes,
    )


def _params(r: TileDot) -> tuple[Params, ...]:
    """Tokens that each have a matrix of their own share nothing."""
    tokens = [t for t in TOKENS if r.tokens % t == 0 and (t == 1 or r.shared)]
    return tuple({"tokens": t, "slices": s} for t in tokens for s in slice_counts(tiles(r.n)))


def _kernel(r: TileDot, params: Params, args: Args) -> UOp:
    together = params["tokens"]
    part, tile = sliced(tiles(r.n), params["slices"])
    lane = UOp.range(TILE, 2, AxisType.UPCAST)
    group, slot = outer(r.tokens // together, 3), outer(r.slots, 4)
    indices = [(group * together + i, slot) for i in range(together)]
    row = tile * TILE + lane
    # tinygrad would make shorter vectors where it knows that rows are missing
    inside = text("{0}", row.cast(dtypes.int32), dtype=dtypes.int32) < r.n if r.n % TILE else None
    stores = [
        masked_element(args["out"], (*r.out(index), row), inside).store(r.value(args, index, row, of_token))
        for index, of_token in zip(indices, _sums(r, args, indices, tile, lane), strict=True)
    ]
    return UOp.group(*stores).end(*ranges(*part, lane, group, slot))


def _sums(r: TileDot, args: Args, indices: Sequence[Index], tile: UOp, lane: UOp) -> list[list[UOp]]:
    """For each token, the sums of a row, one for each weight. Weights of one format share their loops."""
    loops = {
        format: (loop(r.summed, _SUMMED_NUMBER + 10 * i), loop(get_format(format).blocks(r.k), _BLOCK_NUMBER + 10 * i))
        for i, format in enumerate(r.formats)
    }
    sums: list[list[UOp]] = [[] for _ in indices]
    for name, format in r.weights:
        summed, block = loops[format]
        at = [(token, slot if r.summed == 1 else summed) for token, slot in indices]
        values = _block(r, args, name, format, at, (tile, block, lane))
        for of_token, index, value in zip(sums, at, values, strict=True):
            scaled = value if r.share is None else text("{0} * {1}", value, r.share(args, index))
            of_token.append(call("v_whole", reduce_add(scaled, summed, block).bitcast(dtypes.int32)))
    return sums


def _block(
    r: TileDot, args: Args, name: str, format: str, indices: Sequence[Index], place: tuple[UOp, UOp, UOp]
) -> list[UOp]:
    """The value of one block for each token. place: (tile, block, row of the tile)."""
    tile, block, lane = place
    at = tile if r.matrix is None else r.matrix(args, indices[0]) * tiles(r.n) + tile
    fmt = get_format(format)
    planes = [args[f"{name}.{p.name}"][at, block, 0, 0] for p in fmt.planes]
    values = []
    for index in indices:
        row, first = r.x(index)
        x = args["x"][row, first + block * (fmt.block // BLOCK), 0]
        values.append(call(BLOCKS[format], *planes, x, lane=lane))
    return values
