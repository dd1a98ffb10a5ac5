"""An op whose kernels are `Rows`: its variants and operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from db.records import Workload
from kernels import backends
from kernels.ops.linear import defaults, warp
from kernels.ops.linear.defaults import Variants
from kernels.ops.linear.dot import Rows, is_plain, row_params, scheduled
from kernels.ops.op import Op, Operand, Params, Variant, fitting
from kernels.ops.spec import Spec


def row_variants(build: Callable[[Workload], Rows]) -> Callable[[Workload], dict[str, Variant]]:
    """The variants of an op whose kernels are Rows. `build` makes them, and refuses workloads without kernels."""

    def params(w: Workload) -> tuple[Params, ...]:
        r = build(w)
        return row_params(r.formats, r.k)

    table = {
        "dequant": Variant(lambda w, p, args, device: scheduled(build(w), p, args, device, False), params),
        "factored": Variant(lambda w, p, args, device: scheduled(build(w), p, args, device, True), params),
        "warp": Variant(
            lambda w, p, args, device: warp.warp(build(w), p, args, device),
            lambda w: warp.warp_params(build(w)),
            lambda w, p: warp.warp_needs(build(w), p),
            schedulable=False,
        ),
    }

    def variants(w: Workload) -> dict[str, Variant]:
        unblocked = all(map(is_plain, build(w).formats))
        return {name: v for name, v in table.items() if not (unblocked and name == "factored")}

    return variants


def row_op(
    spec: type[Spec],
    build: Callable[[Workload], Rows],
    operands: Callable[[Workload], tuple[Operand, ...]],
    products: Callable[[Workload], int],
    more: Variants = MappingProxyType({}),
    nbytes: Callable[[Workload], int] | None = None,
    tolerances: Mapping[tuple[str, str], float] = MappingProxyType({}),
) -> Op:
    """An op whose kernels are Rows. more: variants beside those of `row_variants`."""
    shared = row_variants(build)

    def found(w: Workload) -> dict[str, Variant]:
        return shared(w) | dict(more)

    return Op(
        name=spec.op,
        spec=spec,
        variants=found,
        operands=operands,
        plain=lambda w: defaults.heuristic(w, found(w)),
        choices=lambda w, device: defaults.choices(w, build(w), fitting(found(w), w, backends.find(device)), device),
        module=build.__module__,
        products=products,
        formats=lambda w: build(w).formats,
        nbytes=nbytes,
        tolerances=tolerances,
    )
