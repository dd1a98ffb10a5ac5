"""`rmsnorm_linear`: RMSNorm and all linears that take the normalised x (q, k and v of a block) in one launch.

out[m, n] holds the parts of `RmsNormLinear` side by side; the operand `norm` is [k]. A row belongs to one part, and
nothing is loaded for it of the weights of other parts.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp

from db.records import Workload
from kernels.formats import get_format
from kernels.ops.kit.loops import total
from kernels.ops.linear import epilogue
from kernels.ops.linear.dot import Index, RowDot, Weight, given_x, weight_operands
from kernels.ops.linear.norm import inverse_rms, norm_operand, normed
from kernels.ops.linear.row_op import row_op
from kernels.ops.linear.spec import RmsNormLinear
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Operand


def _weights(s: RmsNormLinear) -> tuple[Weight, ...]:
    found, start, pairs = [], 0, s.parts
    for i, (format, rows) in enumerate(pairs):
        get_format(format).blocks(s.k)
        found.append(Weight(f"w{i}", format, start, None if len(pairs) == 1 else start + rows))
        start += rows
    return tuple(found)


def row_dot(w: Workload) -> RowDot:
    """Raises KernelError for parts, a dtype or an epilogue without kernels, FormatError for a k that does not fit."""
    epilogue.check(w, "none", "bias")
    s = RmsNormLinear.from_workload(w)

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        *dots, squares = sums  # all dots but one are 0
        return epilogue.store(w, args, index[0], row, total(dots) * inverse_rms(s.k, s.eps, squares))

    return RowDot(w.n, w.k, _weights(s), (w.m,), normed, store, squares=given_x)


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, n], the planes of each part, x [m, x_row], norm [k], then the operands of the epilogue."""
    s = RmsNormLinear.from_workload(w)
    weights = [o for i, (format, n) in enumerate(s.parts) for o in weight_operands(f"w{i}", format, n, w.k)]
    return (
        Operand("out", (w.m, w.n), DTYPES[w.out_dtype], OUT),
        *weights,
        Operand("x", (w.m, s.x_row), DTYPES[w.x_dtype], INPUT),
        norm_operand(w.k),
        *epilogue.operands(w),
    )


OP = row_op(RmsNormLinear, row_dot, _operands, lambda w: w.m * w.n * w.k)
