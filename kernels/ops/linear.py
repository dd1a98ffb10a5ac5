"""`linear`: out[m, n] = sum over k of x[m, k] * W[n, k], over a packed weight, with the epilogue's terms added."""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp

from db.records import Schedule, Workload
from kernels.formats import get_format
from kernels.op import DTYPES, INPUT, OUT, Args, Op, Operand, Variant
from kernels.ops import choices, epilogue, tc
from kernels.ops.rows import Index, Rows, Weight, weight_operands
from kernels.unpack import float32


def rows(w: Workload) -> Rows:
    """Raises KernelError for a dtype or an epilogue without kernels, FormatError for a format or a k that does not
    fit."""
    epilogue.check(w)
    get_format(w.format).blocks(w.k)

    def x(args: Args, index: Index, column: UOp) -> UOp:
        return float32(args["x"][index[0], column])

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        return epilogue.store(w, args, index[0], row, sums[0])

    return Rows(w.n, w.k, (Weight("w", w.format),), (w.m,), x, store)


_row_variants = choices.row_variants(rows)


def _variants(w: Workload) -> dict[str, Variant]:
    return _row_variants(w) | {"tc": tc.variant(rows)}


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, n], the weight's planes [n, blocks, items], x [m, k], then what the epilogue adds."""
    return (
        Operand("out", (w.m, w.n), DTYPES[w.out_dtype], OUT),
        *weight_operands("w", w.format, w.n, w.k),
        Operand("x", (w.m, w.k), DTYPES[w.x_dtype], INPUT),
        *epilogue.operands(w),
    )


def _choices(w: Workload, device: str) -> tuple[Schedule, ...]:
    return choices.rows_choices(w, rows(w), _variants(w), device)


OP = Op(
    name="linear",
    variants=_variants,
    operands=_operands,
    plain=lambda w: choices.plain(w, _variants(w)),
    choices=_choices,
    sources=lambda w: choices.row_sources(w, rows(w), "linear", "tc"),
    products=lambda w: w.m * w.n * w.k,
    tolerances=tc.TOLERANCES,
)
