"""The sizes of a scheduled kernel's loops, by what they became."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinygrad.codegen.opt.tc import TensorCore
from tinygrad.uop.ops import AxisType

from kernels.tinygrad.schedule import Axis, ScheduledKernel

_THREADS = (AxisType.LOCAL, AxisType.GROUP_REDUCE, AxisType.WARP)


@dataclass(frozen=True)
class LoopSizes:
    """Products of sizes: of the loops of a workgroup's threads, of those of them that share a sum, of the workgroups,
    of what is upcast and unrolled, and of the slices that a host's threads share. core_body: what a body of tensor core
    instructions is worth in products."""

    threads: int
    groups: int
    grid: int
    upcast: int
    unroll: int
    slices: int
    core_body: int | None


def loop_sizes(kernel: ScheduledKernel) -> LoopSizes:
    axes, core = kernel.axes, kernel.tensor_core
    return LoopSizes(
        threads=_product(axes, *_THREADS),
        groups=_product(axes, AxisType.GROUP_REDUCE),
        grid=_product(axes, AxisType.GLOBAL),
        upcast=_product(axes, AxisType.UPCAST),
        unroll=_product(axes, AxisType.UNROLL),
        slices=_product(axes, AxisType.THREAD),
        core_body=_core_body(axes, core) if core else None,
    )


def _product(axes: tuple[Axis, ...], *types: AxisType) -> int:
    return math.prod(a.size for a in axes if a.type in types)


def _core_body(axes: tuple[Axis, ...], core: TensorCore) -> int:
    """What a body is worth in products: it has an instruction for each of the loops upcast or unrolled after TC, whose
    own have no names; and for each about 5 uops an element of its operands and result, to load, unpack and add it."""
    instructions = math.prod(a.size for a in axes if a.name and a.type in (AxisType.UPCAST, AxisType.UNROLL))
    return instructions * int(sum(core.elements_per_thread)) // 2
