"""`gate_up`: out[m, n] = act(W_gate x) * (W_up x), a gated feed-forward's first half in one launch.

extra:
    up      format of the second weight, the first is the workload's
    act     silu, gelu or swiglu_oai (`kernels.ops.linear.epilogue`)
    norm    rms: x is normalised first, operand `norm` [k] and extra `eps`; none: it is taken as it is
RMSNorm rides along: a row's 1/rms is one number, so it multiplies the finished sums, and the sum of squares is one more
sum over the x that is read anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp

from db.records import Workload
from kernels.formats import get_format
from kernels.ops.linear import epilogue
from kernels.ops.linear.dot import Index, Rows, Weight, plain_x, weight_operands
from kernels.ops.linear.norm import eps, inverse_rms, norm_operands, normed
from kernels.ops.linear.row_op import row_op
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Operand


def rows(w: Workload) -> Rows:
    """Raises KernelError for a dtype, an activation or an epilogue without kernels, FormatError for a format or a k
    that does not fit."""
    epilogue.check(w, ("none",))
    extra = dict(w.extra)
    if extra.get("norm", "none") == "rms":
        eps(w)
    up = str(extra.get("up", w.format))
    for format in (w.format, up):
        get_format(format).blocks(w.k)
    act, norm = epilogue.activation(w), extra.get("norm", "none") == "rms"

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        gate, other = sums[:2]
        if norm:
            inverse = inverse_rms(w, sums[2])
            gate, other = gate * inverse, other * inverse
        return epilogue.store(w, args, index[0], row, act(gate, other))

    weights = (Weight("gate", w.format), Weight("up", up))
    return Rows(w.n, w.k, weights, (w.m,), normed if norm else plain_x, store, squares=plain_x if norm else None)


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, n], the planes of gate and of up, x [m, k], norm [k] if there is one."""
    extra = dict(w.extra)
    return (
        Operand("out", (w.m, w.n), DTYPES[w.out_dtype], OUT),
        *weight_operands("gate", w.format, w.n, w.k),
        *weight_operands("up", str(extra.get("up", w.format)), w.n, w.k),
        Operand("x", (w.m, w.k), DTYPES[w.x_dtype], INPUT),
        *(norm_operands(w) if extra.get("norm", "none") == "rms" else ()),
    )


OP = row_op("gate_up", rows, _operands, lambda w: 2 * w.m * w.n * w.k)
