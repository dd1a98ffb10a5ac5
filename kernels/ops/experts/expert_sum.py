"""`expert_sum`: out[m, n] = sum over used of probs[m, used] * x[m, used, n], the weighted results of a token's experts.

The epilogue `add` adds a residual. Loops for opts to schedule: 0 token, 1 column.
"""

from __future__ import annotations

from tinygrad import UOp

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.experts import defaults
from kernels.ops.experts.spec import ExpertSum
from kernels.ops.kit.loops import total
from kernels.ops.linear import epilogue
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Op, Operand, Params, Variant


def _used(w: Workload) -> int:
    """The number of slots. Raises KernelError for a workload without a kernel."""
    epilogue.check(w, "none", "add")
    return ExpertSum.from_workload(w).used


def _loops(w: Workload, params: Params, args: Args, device: str) -> UOp:
    token, column = UOp.range(w.m, 0), UOp.range(w.n, 1)
    terms = [args["probs"][token, slot] * float32(args["x"][token, slot, column]) for slot in range(_used(w))]
    return epilogue.store(w, args, token, column, total(terms)).end(token, column)


def _variants(w: Workload) -> dict[str, Variant]:
    _used(w)
    return {"plain": Variant(_loops, lambda w: ({},))}


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, n], x [m, used, n], probs [m, used], then the residual of `add`."""
    used = _used(w)
    return (
        Operand("out", (w.m, w.n), DTYPES[w.out_dtype], OUT),
        Operand("x", (w.m, used, w.n), DTYPES[w.x_dtype], INPUT),
        Operand("probs", (w.m, used), DTYPES["float32"], INPUT),
        *epilogue.operands(w),
    )


OP = Op(
    spec=ExpertSum,
    variants=_variants,
    operands=_operands,
    default_schedules=defaults.expert_sum,
    module=__name__,
    products=lambda w: w.m * w.n * _used(w),
)
