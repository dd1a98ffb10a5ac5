"""`rmsnorm_linear`: RMSNorm and all linears that take the normalised x (q, k and v of a block) in one launch.

out[m, n] holds the parts side by side: n is their rows in all. extra:
    parts   FORMAT.rows of each part in order, joined by +: "Q4_K.5120+Q6_K.1024"; equal neighbours are one part
    eps     of the norm; operand `norm` [k]
    x_row   columns of x's rows, of which the first k are meant; k if missing
A row belongs to one part; of the others' weights nothing is loaded for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tinygrad import UOp

from db.records import Workload
from kernels.formats import get_format
from kernels.ops.linear import epilogue
from kernels.ops.linear.dot import Index, Rows, Weight, plain_x, total, weight_operands
from kernels.ops.linear.norm import eps, inverse_rms, norm_operands, normed
from kernels.ops.linear.row_op import row_op
from kernels.ops.op import DTYPES, INPUT, OUT, Args, KernelError, Operand

MAX_PARTS = 6


def parts(w: Workload) -> tuple[tuple[str, int], ...]:
    """(format, rows) of each part; one of all rows where the extra `parts` is missing. Raises KernelError if they do
    not make up n rows, or do not begin with the workload's format."""
    text = str(dict(w.extra).get("parts", f"{w.format}.{w.n}"))
    found = [re.fullmatch(r"([A-Z0-9_]+)\.([1-9]\d*)", part) for part in text.split("+")]
    if not all(found) or len(found) > MAX_PARTS:
        raise KernelError(f"rmsnorm_linear: parts {text!r} are not FORMAT.rows joined by +, {MAX_PARTS} at most")
    pairs = tuple((m[1], int(m[2])) for m in found if m)
    if sum(rows for _, rows in pairs) != w.n or pairs[0][0] != w.format:
        raise KernelError(f"rmsnorm_linear: parts {text!r} are not {w.n} rows that begin with {w.format}")
    return pairs


def _weights(w: Workload) -> tuple[Weight, ...]:
    found, start, pairs = [], 0, parts(w)
    for i, (format, rows) in enumerate(pairs):
        get_format(format).blocks(w.k)
        found.append(Weight(f"w{i}", format, start, None if len(pairs) == 1 else start + rows))
        start += rows
    return tuple(found)


def _x_row(w: Workload) -> int:
    row = dict(w.extra).get("x_row", w.k)
    if not isinstance(row, int) or row < w.k:
        raise KernelError(f"rmsnorm_linear: the extra x_row is at least k={w.k}, saw {row!r}")
    return row


def rows(w: Workload) -> Rows:
    """Raises KernelError for parts, a dtype or an epilogue without kernels, FormatError for a k that does not fit."""
    epilogue.check(w, ("none", "bias"))
    eps(w)
    _x_row(w)

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        *dots, squares = sums  # all but one of them are 0
        return epilogue.store(w, args, index[0], row, total(dots) * inverse_rms(w, squares))

    return Rows(w.n, w.k, _weights(w), (w.m,), normed, store, squares=plain_x)


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, n], the planes of each part, x [m, x_row], norm [k], then what the epilogue adds."""
    weights = [o for i, (format, n) in enumerate(parts(w)) for o in weight_operands(f"w{i}", format, n, w.k)]
    return (
        Operand("out", (w.m, w.n), DTYPES[w.out_dtype], OUT),
        *weights,
        Operand("x", (w.m, _x_row(w)), DTYPES[w.x_dtype], INPUT),
        *norm_operands(w),
        *epilogue.operands(w),
    )


OP = row_op("rmsnorm_linear", rows, _operands, lambda w: w.m * w.n * w.k)
