"""`head_linear` over quantised activations: out[m, heads, n] = W[heads, n, k] x[m, heads, k], float32.

`HeadLinear` says where the heads of x lie in its rows, which are quantised as a whole: a head begins with a block.
"""

from __future__ import annotations

from db.records import Workload
from kernels.formats import get_format
from kernels.ops.linear.spec import HeadLinear
from kernels.ops.op import DTYPES, OUT, Operand
from kernels.ops.q8.spec import BLOCK, spec_of
from kernels.ops.q8.tile_dot import TileDot, tile_op, tiled_operands, x_operand


def tile_dot(w: Workload) -> TileDot:
    """Raises KernelError for a spec, a format or a dtype without kernels, FormatError for a k that does not fit."""
    s = spec_of(HeadLinear, w)
    get_format(w.format).blocks(w.k)
    if s.step % BLOCK or s.row % BLOCK:
        raise s.refuse(f"heads of quantised x begin with a block of {BLOCK} columns, and its rows are whole blocks")
    return TileDot(
        w.n,
        w.k,
        (("w", w.format),),
        w.m,
        x=lambda index: (index[0], index[1] * (s.step // BLOCK)),
        value=lambda args, index, row, sums: sums[0],
        out=lambda index: index,
        slots=s.heads,
        matrix=lambda args, index: index[1],
    )


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, heads, n], the weight's tiled planes, x."""
    tile_dot(w)
    s = spec_of(HeadLinear, w)
    return (
        Operand("out", (w.m, s.heads, w.n), DTYPES[w.out_dtype], OUT),
        *tiled_operands("w", w.format, s.heads, w.n, w.k),
        x_operand(w.m, s.row),
    )


OP = tile_op(HeadLinear, tile_dot, _operands, lambda w: w.m * spec_of(HeadLinear, w).heads * w.n * w.k)
