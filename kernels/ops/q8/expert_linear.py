"""`expert_linear` over quantised activations, float32: the linears of the experts that were chosen on the device.

Weights are stacked, and the address of a tile is computed from the id of its expert.
    gate_up   out[m, used, n] = act(W_gate[id] x) * (W_up[id] x), for x of m rows
    down      out[m, n] = sum over used of probs[m, used] * (W[id] x), for x of m * used rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats import get_format
from kernels.ops.experts.spec import ExpertLinear
from kernels.ops.kit.loops import constant
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.linear.epilogue import check, operands
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Args, Operand
from kernels.ops.q8 import epilogue
from kernels.ops.q8.spec import check_format, spec_of
from kernels.ops.q8.tile_dot import Index, TileDot, tile_op, tiled_operands, x_operand


def tile_dot(w: Workload) -> TileDot:
    """Raises KernelError for a spec, a format, a dtype or an epilogue without kernels, FormatError for a k that does
    not fit."""
    s = spec_of(ExpertLinear, w)
    for format in s.formats.values():
        check_format(s, format)
        get_format(format).blocks(w.k)
    return _gate_up(w, s) if s.gated else _down(w, s)


def _expert(args: Args, index: Index) -> UOp:
    return args["ids"][index].cast(dtypes.weakint) if "ids" in args else constant(0)


def _biased(s: ExpertLinear, args: Args, name: str, index: Index, row: UOp, value: UOp) -> UOp:
    return value + masked_element(args[name], (_expert(args, index), row)).load() if s.bias else value


def _gate_up(w: Workload, s: ExpertLinear) -> TileDot:
    check(w, "none")

    def value(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        gate, up = (_biased(s, args, f"{n}_bias", index, row, v) for n, v in zip(s.formats, sums, strict=True))
        return epilogue.activated(s.act, gate, up)

    return replace(_stacked(w, s), x=lambda index: (index[0], constant(0)), value=value, slots=s.used)


def _down(w: Workload, s: ExpertLinear) -> TileDot:
    check(w, "none", "add")

    def share(args: Args, index: Index) -> UOp:
        return masked_element(args["probs"], index).load()

    def value(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        result = sums[0]
        for slot in range(s.used) if s.bias else ():
            at = (index[0], constant(slot))
            bias = masked_element(args["down_bias"], (_expert(args, at), row)).load()
            result = result + masked_element(args["probs"], at).load() * bias
        return epilogue.finished(w, args, index[0], row, result)

    return replace(_stacked(w, s), value=value, out=lambda index: (index[0],), summed=s.used, share=share)


def _stacked(w: Workload, s: ExpertLinear) -> TileDot:
    """What both forms have in common; x has a row for each slot of a token, and so has the output."""
    return TileDot(
        w.n,
        w.k,
        tuple(s.formats.items()),
        w.m,
        x=lambda index: (index[0] * s.used + index[1], constant(0)),
        value=lambda args, index, row, sums: sums[0],
        out=lambda index: index,
        matrix=_expert,
        shared=s.experts == 1 and s.used == 1 and s.gated,
    )


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out, the tiled planes of the stacked weights, biases [experts, n], x, ids of more than one expert, probs of
    `down`, then the operands of the epilogue."""
    tile_dot(w)
    s, float_ = spec_of(ExpertLinear, w), DTYPES["float32"]
    return (
        Operand("out", (w.m, s.used, w.n) if s.gated else (w.m, w.n), DTYPES[w.out_dtype], OUT),
        *(o for name, format in s.formats.items() for o in tiled_operands(name, format, s.experts, w.n, w.k)),
        *(Operand(name, (s.experts, w.n), float_, WEIGHT) for name in s.biases),
        x_operand(w.m if s.gated else w.m * s.used, w.k),
        # with one expert no kernel would read ids; tinygrad 0.14's graphs bind wrong buffers if an argument is not used
        *((Operand("ids", (w.m, s.used), DTYPES["int32"], INPUT),) if s.experts > 1 else ()),
        *(() if s.gated else (Operand("probs", (w.m, s.used), float_, INPUT),)),
        *operands(w),
    )


def _nbytes(w: Workload) -> int:
    """Bytes of the weights of the experts that are used, and of every other operand."""
    s = spec_of(ExpertLinear, w)
    active = min(s.experts, w.m * s.used)
    return sum(o.nbytes * active // s.experts if o.role == WEIGHT else o.nbytes for o in _operands(w))


def _products(w: Workload) -> int:
    s = spec_of(ExpertLinear, w)
    return w.m * s.used * w.n * w.k * (2 if s.gated else 1)


OP = tile_op(ExpertLinear, tile_dot, _operands, _products, nbytes=_nbytes)
