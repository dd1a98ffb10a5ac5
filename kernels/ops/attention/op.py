"""An op whose kernels are an `Attention`: its variants and operands."""

from __future__ import annotations

from collections.abc import Callable

from db.records import Workload
from kernels import backends
from kernels.ops.attention import attend, defaults
from kernels.ops.attention.attend import Attention
from kernels.ops.attention.loops import plain, plain_params
from kernels.ops.attention.warp import warp, warp_needs, warp_params
from kernels.ops.attention.workgroup import solo, solo_params, team, team_needs, team_params
from kernels.ops.op import Op, Operand, Variant, fitting
from kernels.ops.spec import Spec


def attention_op(
    spec: type[Spec],
    build: Callable[[Workload], Attention],
    inputs: Callable[[Workload, Attention], tuple[Operand, ...]],
    row_nbytes: Callable[[Attention], int],
) -> Op:
    """An op from what its attention is. inputs: its operands after those written; row_nbytes: of a position
    in the caches."""

    def known(w: Workload) -> Attention:
        attend.check(w)
        return build(w)

    def variants(w: Workload) -> dict[str, Variant]:
        known(w)
        return {
            "plain": Variant(lambda w, p, args, _: plain(w, build(w), p, args), lambda w: plain_params(build(w))),
            "solo": Variant(
                lambda w, p, args, _: solo(w, build(w), p, args),
                lambda w: solo_params(build(w)),
                schedulable=False,
            ),
            "team": Variant(
                lambda w, p, args, _: team(w, build(w), p, args),
                lambda w: team_params(build(w)),
                lambda w, p: team_needs(build(w), p),
                schedulable=False,
            ),
            "warp": Variant(
                lambda w, p, args, device: warp(w, build(w), p, args, device),
                lambda w: warp_params(build(w)),
                lambda w, p: warp_needs(build(w), p),
                schedulable=False,
            ),
        }

    return Op(
        name=spec.op,
        spec=spec,
        variants=variants,
        operands=lambda w: (*attend.outputs(w, known(w)), *inputs(w, known(w))),
        plain=lambda w: defaults.heuristic(known(w)),
        choices=lambda w, device: defaults.choices(w, known(w), fitting(variants(w), w, backends.find(device)), device),
        module=build.__module__,
        products=lambda w: w.m * known(w).heads * known(w).seen * (known(w).head_dim + known(w).value_dim),
        variables=lambda w: (known(w).variable,),
        nbytes=lambda w: known(w).seen * row_nbytes(known(w)) + 4 * w.n * known(w).splits,
    )
