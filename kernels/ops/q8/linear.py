"""`linear` over quantised activations: out[m, n] = x[m, k] W[n, k]^T, followed by the epilogue, float32."""

from __future__ import annotations

from db.records import Workload
from kernels.formats import get_format
from kernels.ops.kit.loops import constant
from kernels.ops.linear.epilogue import EPILOGUES, check, operands
from kernels.ops.linear.spec import Linear
from kernels.ops.op import DTYPES, OUT, Operand
from kernels.ops.q8 import epilogue
from kernels.ops.q8.spec import spec_of
from kernels.ops.q8.tile_dot import TileDot, tile_op, tiled_operands, x_operand


def tile_dot(w: Workload) -> TileDot:
    """Raises KernelError for a format, a dtype or an epilogue without kernels, FormatError for a k that does not
    fit."""
    act = spec_of(Linear, w).act
    check(w, *EPILOGUES)
    get_format(w.format).blocks(w.k)
    return TileDot(
        w.n,
        w.k,
        (("w", w.format),),
        w.m,
        x=lambda index: (index[0], constant(0)),
        value=lambda args, index, row, sums: epilogue.finished(w, args, index[0], row, sums[0], act),
        out=lambda index: (index[0],),
    )


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, n], the weight's tiled planes, x, then the operands of the epilogue."""
    tile_dot(w)
    return (
        Operand("out", (w.m, w.n), DTYPES[w.out_dtype], OUT),
        *tiled_operands("w", w.format, 1, w.n, w.k),
        x_operand(w.m, w.k),
        *operands(w),
    )


OP = tile_op(Linear, tile_dot, _operands, lambda w: w.m * w.n * w.k)
