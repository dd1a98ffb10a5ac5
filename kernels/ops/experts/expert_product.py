"""`expert_product`: out[m * used, n], x times the weights of the experts that many tokens use.

A pair (token, slot) is the number token * used + slot. Pairs come sorted by expert, in `tiles` (see
`kernels.ops.experts.expert_tiles`): those of a tile share a weight. Weights are stacked, [experts, n, k], and stay
where they are. extra:
    experts, used   how many there are, and how many a token uses
    of              token   x [m, k] is the token's
                    pair    x [m * used, k] is the pair's own
    act             with an epilogue that has a gate [m * used, n], as `kernels.ops.linear.epilogue` says
A bias is [experts, n].
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats import get_format
from kernels.formats.unpack import float32
from kernels.ops.experts.expert_tiles import Tiles
from kernels.ops.kit.masked_element import element
from kernels.ops.linear import epilogue, tensor_core
from kernels.ops.linear.dot import Index, Rows, Weight, weight_operands
from kernels.ops.linear.row_op import row_op
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Args, KernelError, Operand


def _shares(w: Workload) -> int:
    """How many pairs have one row of x."""
    of = dict(w.extra).get("of")
    if of not in ("token", "pair"):
        raise KernelError(f"expert_product: x is of a token or a pair, saw of={of!r}")
    return Tiles.of(w).used if of == "token" else 1


def _within(number: UOp, count: int) -> UOp:
    """A number that was loaded, as an index; what is known of its size keeps offsets in 32 bits."""
    return number.cast(dtypes.weakint).minimum(count - 1).maximum(0)


def rows(w: Workload) -> Rows:
    """Loops: place in the tile, tile. Raises KernelError for extras, a dtype or an epilogue without kernels,
    FormatError for a k that does not fit."""
    epilogue.check(w, ("none", "bias", "gate", "bias_gate"))
    t, shares = Tiles.of(w), _shares(w)
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
        value = epilogue.finished(w, args, pair, row, sums[0], (expert(args, index),))
        there = args["tiles"][index[1], index[0]] >= 0
        return element(args["out"], (pair, row), there).store(value.cast(DTYPES[w.out_dtype]))

    return Rows(w.n, w.k, (Weight("w", w.format),), (t.size, t.count), x, store, expert)


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
    "expert_product",
    rows,
    _operands,
    _products,
    more={"tc": tensor_core.variant(rows)},
    nbytes=_nbytes,
    tolerances=tensor_core.TOLERANCES,
)
