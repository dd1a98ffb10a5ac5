"""`topk`: the experts that each token is routed to, ids int32 [m, used], and their weights, probs float32 [m, used].

They come from the router's logits [m, experts] in one launch. The best expert is first; of equal ones, the one with the
lower id. llama.cpp does the same in build_moe_ffn (src/llama-graph.cpp).
"""

from __future__ import annotations

from db.records import Schedule, Workload
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Op, Operand, Variant
from kernels.ops.topk import defaults
from kernels.ops.topk.pairs import pairs
from kernels.ops.topk.spec import TopK
from kernels.ops.topk.warp import warp, warp_needs, warp_params
from kernels.ops.topk.workgroup import single_thread, single_thread_params, workgroup, workgroup_needs, workgroup_params


def _variants(w: Workload) -> dict[str, Variant]:
    # with groups there are so many loops that tinygrad takes ten seconds to lower the kernel: no search starts there
    schedulable = TopK.from_workload(w).groups == 1
    return {
        "pairs": Variant(pairs, lambda w: ({},), schedulable=schedulable),
        "solo": Variant(single_thread, single_thread_params, schedulable=False),
        "team": Variant(workgroup, workgroup_params, workgroup_needs, schedulable=False),
        "warp": Variant(warp, warp_params, warp_needs, schedulable=False),
    }


def _operands(w: Workload) -> tuple[Operand, ...]:
    """ids, probs [m, used], logits [m, experts], then the bias [experts] if there is one."""
    s, float32 = TopK.from_workload(w), DTYPES["float32"]
    bias = (Operand("bias", (s.experts,), float32, WEIGHT),) if s.bias else ()
    return (
        Operand("ids", (w.m, s.used), DTYPES["int32"], OUT),
        Operand("probs", (w.m, s.used), float32, OUT),
        Operand("logits", (w.m, s.experts), DTYPES[w.x_dtype], INPUT),
        *bias,
    )


OP = Op(
    spec=TopK,
    variants=_variants,
    operands=_operands,
    heuristic_baselines=lambda w: (Schedule("pairs", (), None),),
    default_schedules=defaults.topk,
    module=__name__,
    products=lambda w: w.m * w.n,
)
