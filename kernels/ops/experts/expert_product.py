"""`expert_product`: out[m * used, n], for each pair (token, slot) x times the weight of its expert.

The number of a pair is token * used + slot. `tiles` holds the pairs sorted by expert (see
`kernels.ops.experts.expert_tiles`): the pairs of a tile share a weight. Weights are stacked, [experts, n, k], and are
not gathered. A bias is [experts, n].
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
    """Number of pairs that share a row of x."""
    s = ExpertProduct.from_workload(w)
    return s.used if s.of == "token" else 1


def _within(number: UOp, count: int) -> UOp:
    """A number that was loaded, as an index. tinygrad keeps offsets in 32 bits, since it knows the range of the
    index."""
    return number.cast(dtypes.weakint).minimum(count - 1).maximum(0)


def row_dot(w: Workload) -> RowDot:
    """Its loops are the place in the tile and the tile. Raises KernelError for a spec, a dtype or an epilogue without
    kernels, FormatError for a k that does not fit."""
    epilogue.check(w, "none", "bias", "gate", "bias_gate")
    t, shares, act = Tiles.of(w), _shares(w), ExpertProduct.from_workload(w).act
    get_format(w.format).blocks(w.k)

    def pair_at(args: Args, tile: UOp, place: UOp | int) -> UOp:
        """The pair at a place. Where there is none it is pair 0."""
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
    [m * used] of more than one expert, then the operands of the epilogue."""
    t, int32 = Tiles.of(w), DTYPES["int32"]
    return (
        Operand("out", (t.pairs, w.n), DTYPES[w.out_dtype], OUT),
        *weight_operands("w", w.format, t.experts * w.n, w.k),
        Operand("x", (t.pairs // _shares(w), w.k), DTYPES[w.x_dtype], INPUT),
        Operand("tiles", (t.count, t.size), int32, INPUT),
        # with one expert no kernel would read ids; tinygrad 0.14's graphs bind wrong buffers if an argument is not used
        *((Operand("ids", (t.pairs,), int32, INPUT),) if t.experts > 1 else ()),
        *epilogue.operands(w, t.pairs, (t.experts,)),
    )


def _nbytes(w: Workload) -> int:
    """Bytes of the weights of as many experts as can be in use, and of every other operand."""
    t = Tiles.of(w)
    active = min(t.experts, t.pairs)
    return sum(o.nbytes * active // t.experts if o.role == WEIGHT else o.nbytes for o in _operands(w))


def _products(w: Workload) -> int:
    """Places without a pair count too, as the kernel computes them."""
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
