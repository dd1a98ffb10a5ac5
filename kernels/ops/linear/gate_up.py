"""`gate_up`: out[m, n] = act(W_gate x) * (W_up x), the first half of a gated feed-forward in one launch.

If x is normalised first (see `GateUp`), there is an operand `norm` [k]. An RMSNorm then costs little: 1/rms is one
number for a row of x, so that it multiplies the finished sums, and the sum of squares is one more sum over the x that
is read.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp

from db.records import Workload
from kernels.formats import get_format
from kernels.ops.linear import epilogue
from kernels.ops.linear.dot import Index, RowDot, Weight, given_x, weight_operands
from kernels.ops.linear.norm import inverse_rms, norm_operand, normed
from kernels.ops.linear.row_op import row_op
from kernels.ops.linear.spec import GateUp
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Operand


def row_dot(w: Workload) -> RowDot:
    """Raises KernelError for a spec or a dtype without kernels, FormatError for a format or a k that does not fit."""
    s = GateUp.from_workload(w)
    for format in (s.format, s.up):
        get_format(format).blocks(w.k)
    act = epilogue.ACTIVATIONS[s.act]

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        gate, other = sums[:2]
        if s.eps is not None:
            inverse = inverse_rms(s.k, s.eps, sums[2])
            gate, other = gate * inverse, other * inverse
        return epilogue.store(w, args, index[0], row, act(gate, other))

    weights = (Weight("gate", w.format), Weight("up", s.up))
    x, squares = (given_x, None) if s.eps is None else (normed, given_x)
    return RowDot(w.n, w.k, weights, (w.m,), x, store, squares=squares)


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, n], the planes of gate and of up, x [m, k], norm [k] if there is one."""
    s = GateUp.from_workload(w)
    return (
        Operand("out", (w.m, w.n), DTYPES[w.out_dtype], OUT),
        *weight_operands("gate", w.format, w.n, w.k),
        *weight_operands("up", s.up, w.n, w.k),
        Operand("x", (w.m, w.k), DTYPES[w.x_dtype], INPUT),
        *(() if s.eps is None else (norm_operand(w.k),)),
    )


OP = row_op(GateUp, row_dot, _operands, lambda w: 2 * w.m * w.n * w.k)
