"""An op whose kernels are described by an `Attention`: its variants, operands and default schedules."""

from __future__ import annotations

from collections.abc import Callable

from db.records import Workload
from kernels.ops.attention import attend, defaults
from kernels.ops.attention.attend import Attention
from kernels.ops.attention.loops import loops, loops_params
from kernels.ops.attention.warp import warp, warp_needs, warp_params
from kernels.ops.attention.workgroup import (
    single_thread,
    single_thread_params,
    workgroup,
    workgroup_needs,
    workgroup_params,
)
from kernels.ops.op import Op, Operand, Variant
from kernels.ops.spec import Spec


def attention_op(
    spec: type[Spec],
    build: Callable[[Workload], Attention],
    inputs: Callable[[Workload, Attention], tuple[Operand, ...]],
    row_nbytes: Callable[[Attention], int],
) -> Op:
    """An op from the Attention of its workloads (`build`). inputs: the operands after those that are written.
    row_nbytes: bytes of one position in the caches."""

    def variants(w: Workload) -> dict[str, Variant]:
        build(w)
        return {
            "plain": Variant(lambda w, p, args, _: loops(w, build(w), p, args), lambda w: loops_params(build(w))),
            "solo": Variant(
                lambda w, p, args, _: single_thread(w, build(w), p, args),
                lambda w: single_thread_params(build(w)),
                schedulable=False,
            ),
            "team": Variant(
                lambda w, p, args, _: workgroup(w, build(w), p, args),
                lambda w: workgroup_params(build(w)),
                lambda w, p: workgroup_needs(build(w), p),
                schedulable=False,
            ),
            "warp": Variant(
                lambda w, p, args, device: warp(w, build(w), p, args, device),
                lambda w: warp_params(build(w)),
                lambda w, p: warp_needs(build(w), p),
                schedulable=False,
            ),
        }

    def products(w: Workload) -> int:
        a = build(w)
        return w.m * a.heads * a.seen * (a.head_dim + a.value_dim)

    def nbytes(w: Workload) -> int:
        a = build(w)
        return a.seen * row_nbytes(a) + 4 * w.n * a.splits

    return Op(
        spec=spec,
        variants=variants,
        operands=lambda w: (*attend.outputs(w, build(w)), *inputs(w, build(w))),
        heuristic_baselines=lambda w: defaults.heuristic_baselines(build(w)),
        default_schedules=lambda w, variants, device: defaults.default_schedules(w, build(w), variants, device),
        module=build.__module__,
        products=products,
        variables=lambda w: (build(w).variable,),
        nbytes=nbytes,
    )
