"""`topk`: the experts that each token is routed to, ids int32 [m, used], and their weights, probs float32 [m, used].

One launch from the router's logits [m, experts], the best expert first, of equal ones that with the lower id.
As llama.cpp's build_moe_ffn does it (src/llama-graph.cpp).
"""

from __future__ import annotations

from db.records import Schedule, Workload
from kernels import backends
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Op, Operand, Variant, fitting
from kernels.ops.topk import defaults
from kernels.ops.topk.pairs import pairs
from kernels.ops.topk.routing import Routing
from kernels.ops.topk.spec import TopK
from kernels.ops.topk.warp import warp, warp_needs, warp_params
from kernels.ops.topk.workgroup import (
    single_thread,
    single_thread_params,
    workgroup,
    workgroup_needs,
    workgroup_params,
)


def _variants(w: Workload) -> dict[str, Variant]:
    r = Routing.of(w)
    return {
        "pairs": Variant(
            lambda w, _, args, __: pairs(Routing.of(w), args),
            lambda w: ({},),
            # with groups there are so many loops that tinygrad takes ten seconds to lower it: no search starts there
            schedulable=r.groups == 1,
        ),
        "solo": Variant(
            lambda w, p, args, _: single_thread(Routing.of(w), p, args),
            lambda w: single_thread_params(Routing.of(w)),
            schedulable=False,
        ),
        "team": Variant(
            lambda w, p, args, _: workgroup(Routing.of(w), p, args),
            lambda w: workgroup_params(Routing.of(w)),
            lambda w, p: workgroup_needs(Routing.of(w), p),
            schedulable=False,
        ),
        "warp": Variant(
            lambda w, p, args, device: warp(Routing.of(w), p, args, device),
            lambda w: warp_params(Routing.of(w)),
            lambda w, p: warp_needs(p),
            schedulable=False,
        ),
    }


def _operands(w: Workload) -> tuple[Operand, ...]:
    """ids, probs [m, used], logits [m, experts], then the bias [experts] if there is one."""
    r, float32 = Routing.of(w), DTYPES["float32"]
    bias = (Operand("bias", (r.experts,), float32, WEIGHT),) if r.biased else ()
    return (
        Operand("ids", (r.tokens, r.used), DTYPES["int32"], OUT),
        Operand("probs", (r.tokens, r.used), float32, OUT),
        Operand("logits", (r.tokens, r.experts), DTYPES[w.x_dtype], INPUT),
        *bias,
    )


OP = Op(
    name="topk",
    spec=TopK,
    variants=_variants,
    operands=_operands,
    heuristic_baselines=lambda w: (Schedule("pairs", (), None),),
    default_schedules=lambda w, device: defaults.default_schedules(w, fitting(_variants(w), w, backends.find(device))),
    module=__name__,
    products=lambda w: w.m * w.n,
)
