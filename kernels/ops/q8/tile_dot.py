"""Dot products of tiled rows with quantised activations: what all kernels over int8 share.

A kernel computes TILE rows side by side, in vector lanes, for `tokens` tokens that share what is unpacked of the
weights. The sum over the blocks of a row is C code, in which blocks are added one after the other, so that a result
does not depend on how many tokens were computed together. A kernel takes no opts: its vectors and its slices, which
threads share out among themselves, are loops that it makes itself. Parameters:
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
from kernels.ops.kit.pieces import even, pieces
from kernels.ops.op import INPUT, WEIGHT, Args, Op, Operand, Params, Variant
from kernels.ops.q8 import defaults
from kernels.ops.q8.spec import BLOCK, WORDS, q8_shape
from kernels.ops.q8.vector import outer, ranges, text
from kernels.ops.spec import Spec
from kernels.tinygrad.prelude import row_sums
from kernels.tinygrad.uops import AxisType

Index = tuple[UOp, UOp]
"""(token, slot)"""
TOKENS = (8, 4, 2, 1)
_SUMMED_NUMBER = 5


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
    return tuple({"tokens": t, "slices": s} for t in tokens for s in even(tiles(r.n)))


def _kernel(r: TileDot, params: Params, args: Args) -> UOp:
    together = params["tokens"]
    tile, part = pieces(tiles(r.n), params["slices"])
    group, slot = outer(r.tokens // together, 2), outer(r.slots, 3)
    vector = UOp.range(together * TILE, 4, AxisType.UPCAST)
    at = _Place(tile, group * together, slot, together, vector)
    # Of vector % TILE tinygrad would make two loops, and under two Ops.CUSTOM is no vector. For the same reason what
    # has more than one dimension is read and written as `masked_element` does.
    index, row = (group * together + vector // TILE, slot), tile * TILE + (vector + TILE) % TILE
    # tinygrad would make shorter vectors where it knows that rows are missing
    inside = text("{0}", row.cast(dtypes.int32), dtype=dtypes.int32) < r.n if r.n % TILE else None
    value = r.value(args, index, row, [_sum(r, args, name, format, at) for name, format in r.weights])
    store = masked_element(args["out"], (*r.out(index), row), inside).store(value)
    return store.end(*ranges(*part, group, slot, vector))


@dataclass(frozen=True)
class _Place:
    """A tile, the first of some tokens that are computed together, a slot, and the lanes: those of a tile for each of
    the tokens."""

    tile: UOp
    token: UOp
    slot: UOp
    together: int
    vector: UOp


def _sum(r: TileDot, args: Args, name: str, format: str, at: _Place) -> UOp:
    """The sum of a row of one weight, for each token."""
    summed = loop(r.summed, _SUMMED_NUMBER)
    index, fmt = (at.token, at.slot if r.summed == 1 else summed), get_format(format)
    tile = at.tile if r.matrix is None else r.matrix(args, index) * tiles(r.n) + at.tile
    planes = [args[f"{name}.{p.name}"][tile, 0, 0, 0] for p in fmt.planes]
    x_row, groups, items = int(args["x"].shape[1]) * WORDS, fmt.block // BLOCK, [p.items for p in fmt.planes]
    code = row_sums(format, at.together, fmt.blocks(r.k), items, x_row, groups * WORDS)
    value = text(code, *planes, args["x"][*r.x(index), 0], at.vector)
    return value if r.share is None else reduce_add(text("{0} * {1}", value, r.share(args, index)), summed)
