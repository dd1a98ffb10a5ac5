"""`expert_linear`: the linears of a mixture of experts. The experts were chosen on the device: ids int32 [m, used].

Weights are stacked, [experts, n, k]. They are not gathered: the address of a row is computed from the id of its expert.
    gate_up   out[m, used, n] = act(W_gate[id] x) * (W_up[id] x), for x[m, k]
    down      out[m, n] = sum over used of probs[m, used] * (W[id] x[m, used]), for x[m, used, k]: the routing weights
              and the sum over experts in the same launch
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats import get_format
from kernels.formats.unpack import float32
from kernels.ops.experts.spec import ExpertLinear
from kernels.ops.kit.loops import constant
from kernels.ops.linear import epilogue
from kernels.ops.linear.dot import Index, RowDot, Weight, given_x, weight_operands
from kernels.ops.linear.row_op import row_op
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Args, Operand


def _matrix(args: Args, index: Index) -> UOp:
    """The expert of (token, slot)."""
    if "ids" not in args:
        return constant(0)
    return args["ids"][_chosen(index)].cast(dtypes.weakint)


def _chosen(index: Index) -> tuple[UOp, UOp]:
    """(token, slot). Where a token uses one expert there is no loop over slots."""
    return index[0], index[1] if len(index) > 1 else constant(0)


def _bias(s: ExpertLinear, args: Args, name: str, index: Index, row: UOp) -> UOp | None:
    return args[name][_matrix(args, index), row] if s.bias else None


def row_dot(w: Workload) -> RowDot:
    """Raises KernelError for a spec, a dtype or an epilogue without kernels, FormatError for a k that does not fit."""
    s = ExpertLinear.from_workload(w)
    for format in s.formats.values():
        get_format(format).blocks(w.k)
    return _gate_up(w, s) if s.gated else _down(w, s)


def _gate_up(w: Workload, s: ExpertLinear) -> RowDot:
    epilogue.check(w, "none")
    act = epilogue.ACTIVATIONS[s.act]

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        biases = [_bias(s, args, name, index, row) for name in ("gate_bias", "up_bias")]
        gate, other = (dot if b is None else dot + b for dot, b in zip(sums, biases, strict=True))
        return args["out"][index[0], index[1], row].store(act(gate, other).cast(DTYPES[w.out_dtype]))

    weights = tuple(Weight(name, format) for name, format in s.formats.items())
    return RowDot(w.n, w.k, weights, (w.m, s.used), given_x, store, _matrix)


def _down(w: Workload, s: ExpertLinear) -> RowDot:
    epilogue.check(w, "none", "add")

    def x(args: Args, index: Index, column: UOp) -> UOp:
        at = _chosen(index)
        return float32(args["x"][*at, column]) * args["probs"][at]

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        value = sums[0]
        for slot in range(s.used):
            at = (index[0], constant(slot))
            if (bias := _bias(s, args, "down_bias", at, row)) is not None:
                value = value + args["probs"][at] * bias
        return epilogue.store(w, args, index[0], row, value)

    return RowDot(w.n, w.k, (Weight("w", w.format),), (w.m,), x, store, _matrix, summed=s.used)


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out, the planes of the stacked weights [experts * n, blocks, items], biases [experts, n], x, ids of more than one
    expert, probs of `down`, then the operands of the epilogue."""
    s = ExpertLinear.from_workload(w)
    float_, x_dtype = DTYPES["float32"], DTYPES[w.x_dtype]
    return (
        Operand("out", (w.m, s.used, w.n) if s.gated else (w.m, w.n), DTYPES[w.out_dtype], OUT),
        *(o for name, format in s.formats.items() for o in weight_operands(name, format, s.experts * w.n, w.k)),
        *(Operand(name, (s.experts, w.n), float_, WEIGHT) for name in s.biases),
        Operand("x", (w.m, w.k) if s.gated else (w.m, s.used, w.k), x_dtype, INPUT),
        # with one expert no kernel would read ids; tinygrad 0.14's graphs bind wrong buffers if an argument is not used
        *((Operand("ids", (w.m, s.used), DTYPES["int32"], INPUT),) if s.experts > 1 else ()),
        *(() if s.gated else (Operand("probs", (w.m, s.used), float_, INPUT),)),
        *epilogue.operands(w),
    )


def _nbytes(w: Workload) -> int:
    """Bytes of the weights of the experts that are used, and of every other operand."""
    s = ExpertLinear.from_workload(w)
    active = min(s.experts, w.m * s.used)
    return sum(o.nbytes * active // s.experts if o.role == WEIGHT else o.nbytes for o in _operands(w))


def _products(w: Workload) -> int:
    s = ExpertLinear.from_workload(w)
    return w.m * s.used * w.n * w.k * (2 if s.gated else 1)


OP = row_op(ExpertLinear, row_dot, _operands, _products, nbytes=_nbytes)
