"""`head_linear`: out[m, heads, n] = W[heads, n, k] x[m, heads, k], one linear a head: what MLA absorbs into q and takes
out of its attention.

extras: heads; step and row, where x is a part of wider rows: head h of a token has the columns h * step .. h * step + k
of its `row` columns. By default step is k and row heads * step.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp

from db.records import Workload
from kernels.formats import get_format
from kernels.formats.unpack import float32
from kernels.ops.linear import epilogue, tensor_core
from kernels.ops.linear.dot import Index, Rows, Weight, weight_operands
from kernels.ops.linear.row_op import row_op
from kernels.ops.op import DTYPES, INPUT, OUT, Args, KernelError, Operand


def _heads(w: Workload) -> int:
    heads = dict(w.extra).get("heads")
    if not isinstance(heads, int) or heads < 1:
        raise KernelError(f"head_linear needs the extra heads, a count; saw {heads!r}")
    return heads


def _place(w: Workload) -> tuple[int, int]:
    """(step, row) of x."""
    extra, heads = dict(w.extra), _heads(w)
    step = extra.get("step", w.k)
    row = extra.get("row", heads * step if isinstance(step, int) else 0)
    if not (isinstance(step, int) and isinstance(row, int)) or not w.k <= step or not (heads - 1) * step + w.k <= row:
        raise KernelError(f"head_linear: {heads} heads of {w.k} columns are not in step={step!r} row={row!r}")
    return step, row


def rows(w: Workload) -> Rows:
    """Raises KernelError for heads, a dtype or an epilogue without kernels, FormatError for a k that does not fit."""
    epilogue.check(w, ("none",))
    get_format(w.format).blocks(w.k)

    step, _ = _place(w)

    def x(args: Args, index: Index, column: UOp) -> UOp:
        return float32(args["x"][index[0], index[1] * step + column])

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        return args["out"][index[0], index[1], row].store(sums[0].cast(DTYPES[w.out_dtype]))

    return Rows(w.n, w.k, (Weight("w", w.format),), (w.m, _heads(w)), x, store, lambda args, index: index[1])


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, heads, n], the weight's planes [heads * n, blocks, items], x [m, row]."""
    heads = _heads(w)
    return (
        Operand("out", (w.m, heads, w.n), DTYPES[w.out_dtype], OUT),
        *weight_operands("w", w.format, heads * w.n, w.k),
        Operand("x", (w.m, _place(w)[1]), DTYPES[w.x_dtype], INPUT),
    )


OP = row_op(
    "head_linear",
    rows,
    _operands,
    lambda w: w.m * _heads(w) * w.n * w.k,
    more={"tc": tensor_core.variant(rows)},
    tolerances=tensor_core.TOLERANCES,
)
