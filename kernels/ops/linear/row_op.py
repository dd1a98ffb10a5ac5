"""An op whose kernels are described by a `RowDot`: its variants, operands and default schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from db.records import Workload
from kernels.ops.linear import defaults, warp
from kernels.ops.linear.defaults import Variants
from kernels.ops.linear.dot import RowDot, is_unquantized
from kernels.ops.linear.loops import loops, row_params
from kernels.ops.op import Op, Operand, Params, Variant
from kernels.ops.spec import Spec


def row_op(
    spec: type[Spec],
    build: Callable[[Workload], RowDot],
    operands: Callable[[Workload], tuple[Operand, ...]],
    products: Callable[[Workload], int],
    more: Variants = MappingProxyType({}),
    nbytes: Callable[[Workload], int] | None = None,
    tolerances: Mapping[tuple[str, str], float] = MappingProxyType({}),
) -> Op:
    """An op whose kernels are each described by a RowDot. `build` makes that of a workload, or raises KernelError or
    FormatError where there is no kernel for it. more: variants besides those that every such op has."""

    def params(w: Workload) -> tuple[Params, ...]:
        r = build(w)
        return row_params(r.formats, r.k)

    table = {
        "dequant": Variant(lambda w, p, args, device: loops(build(w), p, args, device, False), params),
        "factored": Variant(lambda w, p, args, device: loops(build(w), p, args, device, True), params),
        "warp": Variant(
            lambda w, p, args, device: warp.warp(build(w), p, args, device),
            lambda w: warp.warp_params(build(w)),
            lambda w, p: warp.warp_needs(build(w), p),
            schedulable=False,
        ),
        **more,
    }

    def variants(w: Workload) -> dict[str, Variant]:
        unblocked = all(map(is_unquantized, build(w).formats))
        return {name: v for name, v in table.items() if not (unblocked and name == "factored")}

    return Op(
        spec=spec,
        variants=variants,
        operands=operands,
        heuristic_baselines=lambda w: defaults.heuristic_baselines(w, variants(w)),
        default_schedules=lambda w, variants, device: defaults.default_schedules(w, build(w), variants, device),
        module=build.__module__,
        products=products,
        formats=lambda w: build(w).formats,
        nbytes=nbytes,
        tolerances=tolerances,
    )
