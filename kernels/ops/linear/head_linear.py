"""`head_linear`: out[m, heads, n] = W[heads, n, k] x[m, heads, k], a linear for each head. Latent attention has two:
the products of q with k_b, and of the result with v_b.

`HeadLinear` says where the heads of x lie in its rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp

from db.records import Workload
from kernels.formats import get_format
from kernels.formats.unpack import float32
from kernels.ops.linear import tensor_core
from kernels.ops.linear.dot import Index, RowDot, Weight, weight_operands
from kernels.ops.linear.row_op import row_op
from kernels.ops.linear.spec import HeadLinear
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Operand


def row_dot(w: Workload) -> RowDot:
    """Raises KernelError for a spec or a dtype without kernels, FormatError for a k that does not fit."""
    get_format(w.format).blocks(w.k)
    s = HeadLinear.from_workload(w)

    def x(args: Args, index: Index, column: UOp) -> UOp:
        return float32(args["x"][index[0], index[1] * s.step + column])

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        return args["out"][index[0], index[1], row].store(sums[0].cast(DTYPES[w.out_dtype]))

    return RowDot(w.n, w.k, (Weight("w", w.format),), (w.m, s.heads), x, store, lambda args, index: index[1])


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, heads, n], the weight's planes [heads * n, blocks, items], x [m, row]."""
    s = HeadLinear.from_workload(w)
    return (
        Operand("out", (w.m, s.heads, w.n), DTYPES[w.out_dtype], OUT),
        *weight_operands("w", w.format, s.heads * w.n, w.k),
        Operand("x", (w.m, s.row), DTYPES[w.x_dtype], INPUT),
    )


OP = row_op(
    HeadLinear,
    row_dot,
    _operands,
    lambda w: w.m * HeadLinear.from_workload(w).heads * w.n * w.k,
    more={"tc": tensor_core.variant(row_dot)},
    tolerances=tensor_core.TOLERANCES,
)
