"""`expert_product`: out[m * used, n], x times the weights of the experts that many tokens use.

A pair (token, slot) is the number token * used + slot. Pairs come sorted by expert, in `tiles` (see
`kernels.ops.experts.expert_tiles`): those of a tile share a weight. Weights are stacked, [experts, n, k], and stay
where they are. A bias is [experts, n].
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats import get_format
from kernels.formats.unpack import float32
from kernels.ops.experts.expert_tiles import Tiles
from kernels.ops.experts.spec import ExpertProduct
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.linear import epilogue, tensor_core
from kernels.ops.linear.dot import Index, RowDot, Weight, weight_operands
from kernels.ops.linear.row_op import row_op
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Args, Operand


def _shares(w: Workload) -> int:
    """How many pairs have one row of x."""
    s = ExpertProduct.from_workload(w)
    return s.used if s.of == "token" else 1


def _within(number: UOp, count: int) -> UOp:
    """A number that was loaded, as an index; what is known of its size keeps offsets in 32 bits."""
    return number.cast(dtypes.weakint).minimum(count - 1).maximum(0)


def row_dot(w: Workload) -> RowDot:
    """Loops: place in the tile, tile. Raises KernelError for a spec, a dtype or an epilogue without kernels,
    FormatError for a k that does not fit."""
    epilogue.check(w, "none", "bias", "gate", "bias_gate")
    t, shares, act = Tiles.of(w), _shares(w), ExpertProduct.from_workload(w).act
    get_format(w.format).blocks(w.k)

    def pair_at(args: Args, tile: UOp, place: UOp | int) -> UOp:
        """The pair; any where there is none."""
        return _within(args["tiles"][tile, place], t.pairs)

    def expert(args: Args, index: Index) -> UOp:
        first = pair_at(args, index[1], 0)
        return _within(args["ids"][first], t.experts) if "ids" in args else UOp.const(0, dtypes.weakint)

    def x(args: Args, index: Index, column: UOp) -> UOp:
        return float32(args["x"][pair_at(args, index[1], index[0]) // shares, column])

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        pair = pair_at(args, index[1], index[0])
        value = epilogue.finished(w, args, pair, row, sums[0], act, (expert(args, index),))
        there = args["tiles"][index[1], index[0]] >= 0
        return masked_element(args["out"], (pair, row), there).store(value.cast(DTYPES[w.out_dtype]))

    return RowDot(w.n, w.k, (Weight("w", w.format),), (t.size, t.count), x, store, expert)


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m * used, n], the planes of the stacked weights [experts * n, blocks, items], x, tiles [tiles, size], ids
    [m * used] of more than one expert, then what the epilogue adds."""
    t, int32 = Tiles.of(w), DTYPES["int32"]
    return (
        Operand("out", (t.pairs, w.n), DTYPES[w.out_dtype], OUT),
        *weight_operands("w", w.format, t.experts * w.n, w.k),
        Operand("x", (t.pairs // _shares(w), w.k), DTYPES[w.x_dtype], INPUT),
        Operand("tiles", (t.count, t.size), int32, INPUT),
        # nobody asks which of one expert; tinygrad 0.14's graphs bind the wrong buffers to a kernel that leaves one out
        *((Operand("ids", (t.pairs,), int32, INPUT),) if t.experts > 1 else ()),
        *epilogue.operands(w, t.pairs, (t.experts,)),
    )


def _nbytes(w: Workload) -> int:
    """The weights of as many experts as can be in use, and everything else once."""
    t = Tiles.of(w)
    active = min(t.experts, t.pairs)
    return sum(o.nbytes * active // t.experts if o.role == WEIGHT else o.nbytes for o in _operands(w))


def _products(w: Workload) -> int:
    """Places without a pair count too: they are computed."""
    t = Tiles.of(w)
    return t.count * t.size * w.n * w.k


OP = row_op(
    ExpertProduct,
    row_dot,
    _operands,
    _products,
    more={"tc": tensor_core.variant(row_dot)},
    nbytes=_nbytes,
    tolerances=tensor_core.TOLERANCES,
)
