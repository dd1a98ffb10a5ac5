"""`gate_up` over quantised activations: out[m, n] = act(W_gate x) * (W_up x), float32. There is no norm: it is in the
launch that quantises x."""

from __future__ import annotations

from db.records import Workload
from kernels.formats import get_format
from kernels.ops.kit.loops import constant
from kernels.ops.linear.spec import GateUp
from kernels.ops.op import DTYPES, OUT, Operand
from kernels.ops.q8 import epilogue
from kernels.ops.q8.spec import check_format, spec_of
from kernels.ops.q8.tile_dot import TileDot, tile_op, tiled_operands, x_operand


def tile_dot(w: Workload) -> TileDot:
    """Raises KernelError for a spec, a format or a dtype without kernels, FormatError for a k that does not fit."""
    s = spec_of(GateUp, w)
    if s.eps is not None:
        raise s.refuse("x is normalised where it is quantised, so that eps is none")
    for format in (s.format, s.up):
        check_format(s, format)
        get_format(format).blocks(w.k)
    return TileDot(
        w.n,
        w.k,
        (("gate", s.format), ("up", s.up)),
        w.m,
        x=lambda index: (index[0], constant(0)),
        value=lambda args, index, row, sums: epilogue.activated(s.act, *sums),
        out=lambda index: (index[0],),
    )


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, n], the tiled planes of gate and of up, x."""
    s = spec_of(GateUp, w)
    return (
        Operand("out", (w.m, w.n), DTYPES[w.out_dtype], OUT),
        *tiled_operands("gate", s.format, 1, w.n, w.k),
        *tiled_operands("up", s.up, 1, w.n, w.k),
        x_operand(w.m, w.k),
    )


OP = tile_op(GateUp, tile_dot, _operands, lambda w: 2 * w.m * w.n * w.k)
