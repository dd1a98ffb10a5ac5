"""`linear`: out[m, n] = sum over k of x[m, k] * W[n, k], over a packed weight, followed by the epilogue."""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp

from db.records import Workload
from kernels.formats import get_format
from kernels.ops.linear import epilogue, tensor_core
from kernels.ops.linear.dot import Index, RowDot, Weight, given_x, weight_operands
from kernels.ops.linear.row_op import row_op
from kernels.ops.linear.spec import Linear
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Operand


def row_dot(w: Workload) -> RowDot:
    """Raises KernelError for a dtype or an epilogue without kernels, FormatError for a format or a k that does not
    fit."""
    epilogue.check(w, *epilogue.EPILOGUES)
    get_format(w.format).blocks(w.k)
    act = Linear.from_workload(w).act

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        return epilogue.store(w, args, index[0], row, sums[0], act)

    return RowDot(w.n, w.k, (Weight("w", w.format),), (w.m,), given_x, store)


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, n], the weight's planes [n, blocks, items], x [m, k], then the operands of the epilogue."""
    return (
        Operand("out", (w.m, w.n), DTYPES[w.out_dtype], OUT),
        *weight_operands("w", w.format, w.n, w.k),
        Operand("x", (w.m, w.k), DTYPES[w.x_dtype], INPUT),
        *epilogue.operands(w),
    )


OP = row_op(
    Linear,
    row_dot,
    _operands,
    lambda w: w.m * w.n * w.k,
    more={"tc": tensor_core.variant(row_dot)},
    tolerances=tensor_core.TOLERANCES,
)
