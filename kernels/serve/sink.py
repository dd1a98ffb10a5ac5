"""Workload + schedule -> the kernel's SINK, with the opts checked against this kernel and device.

A stored schedule may no longer apply: another device's limits, a neighbour's shape, a database written by hand. `build`
raises then; what is served falls back (`kernels.serve.server`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tinygrad import Device, UOp

from db.records import Schedule, Workload
from kernels import backends
from kernels.ops import registry
from kernels.ops.registry import Variant
from kernels.serve import defaults
from kernels.serve.limits import Limits, sizes_of
from kernels.tinygrad import slices
from kernels.tinygrad.renderers import Renderer, device_renderer
from kernels.tinygrad.schedule import ScheduledKernel, ScheduleError

# what tinygrad raises for a device whose driver, library or compiler is not there
DEVICE_MISSING = (RuntimeError, OSError, AttributeError, AssertionError, ImportError, LookupError, ExceptionGroup)


def placeholders(w: Workload) -> tuple[UOp, ...]:
    """The kernel's arguments as UOps, in slot order."""
    return tuple(UOp.placeholder(o.shape, o.dtype, slot=i) for i, o in enumerate(registry.operands(w)))


def complete(variant: Variant, schedule: Schedule) -> bool:
    """False where `schedule` lacks the opt that its variant is only right with."""
    return variant.must is None or any(o.op == variant.must for o in schedule.opts or ())


def build(w: Workload, schedule: Schedule, ren: Renderer | None = None) -> UOp:
    """The kernel's SINK: parameters 0 = out [m, n], 1.. = the weight's planes, last = x [m, k]; opts in its KernelInfo.

    With a renderer, opts are put on the loops they name and checked; without one (no device to ask) that of the
    default device is used. Raises KernelError for an unknown op, variant or parameters, ScheduleError for opts that do
    not apply, make the kernel larger than a search would (`kernels.serve.limits`), or lack the one that the variant
    must have.
    """
    ren = device_renderer(Device.DEFAULT) if ren is None else ren
    backends.find(device := registry.backend(ren)).prepare()
    slices.patch_tinygrad()
    return _scheduled(w, _body(w, schedule, device), schedule, ren)


def _body(w: Workload, schedule: Schedule, device: str) -> UOp:
    sink = registry.body(w, schedule, placeholders(w), device)
    if not complete(variant := registry.variants(w, device)[schedule.variant], schedule):
        raise ScheduleError(f"{schedule.variant} computes rightly only with {variant.must} among its opts")
    return sink


def _scheduled(w: Workload, sink: UOp, schedule: Schedule, ren: Renderer) -> UOp:
    if not schedule.opts:
        return sink
    device = registry.backend(ren)
    if not registry.variants(w, device)[schedule.variant].schedulable:
        raise ScheduleError(f"{schedule.variant} fixes its own structure and takes no opts")
    bare = ScheduledKernel(sink, ren)
    kernel = bare.with_opts(schedule.opts)
    too_large = Limits.of(ren, w).exceeded(sizes_of(w, schedule, bare, kernel))
    if too_large and schedule not in defaults.defaults(w, device):  # ours may be as large as they were made
        raise ScheduleError(f"too large a kernel: {too_large}")
    return sink.replace(arg=replace(sink.arg, opts_to_apply=kernel.tinygrad_opts))


def applies(w: Workload, schedule: Schedule, device: str, ren: Renderer | None = None) -> bool:
    """True if `schedule` can be built for `w`. Its opts are checked against `ren`, by default that of `device`, which
    this opens; and not at all where this machine has no such device."""
    try:
        ren = ren or device_renderer(device)
    except DEVICE_MISSING:
        ren = None
    return can_build(w, schedule, device, ren)


def can_build(w: Workload, schedule: Schedule, device: str, ren: Renderer | None) -> bool:
    """True if `schedule` can be built for `w` on `device`. Its opts are not checked without a renderer."""
    try:
        if ren is None:
            _body(w, schedule, device)
        else:
            build(w, schedule, ren)
    except (ScheduleError, registry.KernelError):
        return False
    return True


def buildable(ren: Renderer) -> Callable[[Workload, Schedule], bool]:
    """Whether a schedule can be built for a workload, on the device of a renderer."""
    return lambda w, schedule: can_build(w, schedule, registry.backend(ren), ren)


def default(w: Workload, ren: Renderer) -> Schedule | None:
    """The hand-chosen schedule for a renderer's device: the first of `defaults` that applies, if one does."""
    device = registry.backend(ren)
    return next((s for s in defaults.defaults(w, device) if applies(w, s, device, ren)), None)
