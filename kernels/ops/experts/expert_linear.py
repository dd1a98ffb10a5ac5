"""`expert_linear`: a mixture of experts' linears, whose experts are chosen on the device: ids int32 [m, used].

Weights are stacked, [experts, n, k], and stay where they are: a row's address is computed from its expert's id. extra:
    experts, used   how many there are, and how many a token uses
    form            gate_up   out[m, used, n] = act(W_gate[id] x) * (W_up[id] x), for x[m, k]
                    down      out[m, n] = sum over used of probs[m, used] * (W[id] x[m, used]), for x[m, used, k]:
                              the routing weights and the sum over experts in the same launch
    up, act         of gate_up, as `kernels.ops.linear.gate_up` has them
    bias            1: each expert has a bias of n (gate_up: two), added before the activation or the routing weight
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats import get_format
from kernels.formats.unpack import float32
from kernels.ops.linear import epilogue
from kernels.ops.linear.dot import Index, Rows, Weight, plain_x, weight_operands
from kernels.ops.linear.row_op import row_op
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Args, KernelError, Operand

FORMS = ("gate_up", "down")


def _extra(w: Workload) -> tuple[str, int, int]:
    """Form, experts, used. Raises KernelError for others than there are."""
    extra = dict(w.extra)
    form, experts, used = extra.get("form"), extra.get("experts"), extra.get("used")
    if form not in FORMS or not isinstance(experts, int) or not isinstance(used, int) or not 1 <= used <= experts:
        raise KernelError(f"expert_linear: no kernel for form={form!r} experts={experts!r} used={used!r}")
    return str(form), experts, used


def _matrix(args: Args, index: Index) -> UOp:
    """The expert of (token, slot)."""
    if "ids" not in args:
        return UOp.const(0, dtypes.weakint)
    return args["ids"][_chosen(index)].cast(dtypes.weakint)


def _chosen(index: Index) -> tuple[UOp, UOp]:
    """(token, slot); there is no loop over slots where a token uses one."""
    return index[0], index[1] if len(index) > 1 else UOp.const(0, dtypes.weakint)


def _bias(w: Workload, args: Args, name: str, index: Index, row: UOp) -> UOp | None:
    return args[name][_matrix(args, index), row] if dict(w.extra).get("bias", 0) else None


def rows(w: Workload) -> Rows:
    """Raises KernelError for extras, a dtype or an epilogue without kernels, FormatError for a k that does not fit."""
    form, _, _ = _extra(w)
    get_format(w.format).blocks(w.k)
    return _gate_up(w) if form == "gate_up" else _down(w)


def _gate_up(w: Workload) -> Rows:
    epilogue.check(w, ("none",))
    act, up = epilogue.activation(w), str(dict(w.extra).get("up", w.format))
    get_format(up).blocks(w.k)

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        biases = [_bias(w, args, name, index, row) for name in ("gate_bias", "up_bias")]
        gate, other = (s if b is None else s + b for s, b in zip(sums, biases, strict=True))
        return args["out"][index[0], index[1], row].store(act(gate, other).cast(DTYPES[w.out_dtype]))

    weights = (Weight("gate", w.format), Weight("up", up))
    return Rows(w.n, w.k, weights, (w.m, _extra(w)[2]), plain_x, store, _matrix)


def _down(w: Workload) -> Rows:
    epilogue.check(w, ("none", "add"))
    used = _extra(w)[2]

    def x(args: Args, index: Index, column: UOp) -> UOp:
        at = _chosen(index)
        return float32(args["x"][*at, column]) * args["probs"][at]

    def store(args: Args, index: Index, row: UOp, sums: Sequence[UOp]) -> UOp:
        value = sums[0]
        for slot in range(used):
            at = (index[0], UOp.const(slot, dtypes.weakint))
            if (bias := _bias(w, args, "down_bias", at, row)) is not None:
                value = value + args["probs"][at] * bias
        return epilogue.store(w, args, index[0], row, value)

    return Rows(w.n, w.k, (Weight("w", w.format),), (w.m,), x, store, _matrix, summed=used)


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out, the planes of the stacked weights [experts * n, blocks, items], biases [experts, n], x, ids of more than one
    expert, probs of `down`, then what the epilogue adds."""
    form, experts, used = _extra(w)
    names = {"gate": w.format, "up": str(dict(w.extra).get("up", w.format))} if form == "gate_up" else {"w": w.format}
    biases = () if not dict(w.extra).get("bias", 0) else ("down_bias",) if form == "down" else ("gate_bias", "up_bias")
    float_, x_dtype = DTYPES["float32"], DTYPES[w.x_dtype]
    return (
        Operand("out", (w.m, used, w.n) if form == "gate_up" else (w.m, w.n), DTYPES[w.out_dtype], OUT),
        *(o for name, format in names.items() for o in weight_operands(name, format, experts * w.n, w.k)),
        *(Operand(name, (experts, w.n), float_, WEIGHT) for name in biases),
        Operand("x", (w.m, w.k) if form == "gate_up" else (w.m, used, w.k), x_dtype, INPUT),
        # nobody asks which of one expert; tinygrad 0.14's graphs bind the wrong buffers to a kernel that leaves one out
        *((Operand("ids", (w.m, used), DTYPES["int32"], INPUT),) if experts > 1 else ()),
        *((Operand("probs", (w.m, used), float_, INPUT),) if form == "down" else ()),
        *epilogue.operands(w),
    )


def _nbytes(w: Workload) -> int:
    """The weights of the experts that are used, and everything else once."""
    _, experts, used = _extra(w)
    active = min(experts, w.m * used)
    return sum(o.nbytes * active // experts if o.role == WEIGHT else o.nbytes for o in _operands(w))


def _products(w: Workload) -> int:
    form, _, used = _extra(w)
    return w.m * used * w.n * w.k * (2 if form == "gate_up" else 1)


OP = row_op("expert_linear", rows, _operands, _products, nbytes=_nbytes)
