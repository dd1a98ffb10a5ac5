"""`flash_combine`: puts together what `flash_decode` or `mla_decode` found in each split of the context.

Workload: format F32 (that of the parts), n = heads * v_head_dim, k = splits, m = 1.

    out    [heads, v_head_dim]              written
    parts  [splits, heads, v_head_dim] float32: the mean of each run's values
    lse    [splits, heads] float32: log2 of each run's softmax denominator
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.ops.attention import defaults
from kernels.ops.attention.spec import FlashCombine
from kernels.ops.kit.loops import loop, reduce_add, reduce_max
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Op, Operand, Params, Variant


def _build(w: Workload, params: Params, args: Args, device: str) -> UOp:
    """The kernel. Loops: 0 head, 1 column, 2 the runs, for the highest lse, 3 the runs, for the sums."""
    s = FlashCombine.from_workload(w)
    head, column = UOp.range(s.heads, 0), UOp.range(s.v_head_dim, 1)
    first, second = loop(s.splits, 2), loop(s.splits, 3)
    top = reduce_max(args["lse"][first, head], first)
    weight = (args["lse"][second, head] - top).exp2()
    mean = reduce_add(weight * args["parts"][second, head, column], second) / reduce_add(weight, second)
    return args["out"][head, column].store(mean.cast(DTYPES[w.out_dtype])).end(head, column)


def _variants(w: Workload) -> dict[str, Variant]:
    FlashCombine.from_workload(w)
    return {"plain": Variant(_build, lambda w: ({},))}


def _operands(w: Workload) -> tuple[Operand, ...]:
    s = FlashCombine.from_workload(w)
    return (
        Operand("out", (s.heads, s.v_head_dim), DTYPES[w.out_dtype], OUT),
        Operand("parts", (s.splits, s.heads, s.v_head_dim), dtypes.float32, INPUT),
        Operand("lse", (s.splits, s.heads), dtypes.float32, INPUT),
    )


OP = Op(
    spec=FlashCombine,
    variants=_variants,
    operands=_operands,
    default_schedules=defaults.flash_combine,
    module=__name__,
    products=lambda w: 2 * w.n * w.k,
)
