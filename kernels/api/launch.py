"""One launch of an op inside a Tensor graph: looks up the schedule, builds the kernel, and returns the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tinygrad import Tensor, UOp

from db.records import Workload
from kernels.api.arguments import fitting
from kernels.ops.op import OUT, UPDATE, Operand
from kernels.ops.registry import operands
from kernels.serve.server import shared
from kernels.tinygrad.uops import Ops


def empty(operand: Operand, device: str) -> Tensor:
    """An uninitialised buffer for an operand."""
    return Tensor.empty(*operand.shape, dtype=operand.dtype, device=device)


def launch(
    workload: Workload,
    device: str,
    read: Mapping[str, Tensor | Sequence[Tensor]],
    *bound: UOp,
    out: Callable[[Operand, str], Tensor] = empty,
) -> tuple[Tensor, ...]:
    """The operands that the kernel writes, in slot order, after the launch.

    read    the operands by name, except those of role `out`. A sequence under "w" provides all operands called "w.<…>"
    bound   the kernel's Variables, bound to their values
    out     makes the buffers of role `out`

    Works inside TinyJit. A kernel that is in no cache is compiled when an output is realized. Raises ArgumentError for
    an operand that does not fit, DeviceError for a device that does not open.
    """
    given = _spread(workload, read, device)
    sources = [
        out(o, device).uop if o.role == OUT else _written(given[o.name].uop) if o.role != UPDATE else given[o.name].uop
        for o in operands(workload)
    ]
    call = shared().program(workload, device).call(*sources, *bound)
    written = [s for s, o in zip(sources, operands(workload), strict=True) if o.role in (OUT, UPDATE)]
    return tuple(Tensor(s.after(call)) for s in written)


def _written(u: UOp) -> UOp:
    """`u` as a contiguous buffer. The output of a kernel already is one, under any shape."""
    base = u
    while base.op is Ops.RESHAPE:
        base = base.src[0]
    return base if base.op is Ops.AFTER else u.contiguous()


def _spread(workload: Workload, read: Mapping[str, Tensor | Sequence[Tensor]], device: str) -> dict[str, Tensor]:
    """The tensor of each operand, by name, in the operand's shape."""
    found: dict[str, Tensor] = {}
    taken: dict[str, int] = {}
    for o in operands(workload):
        if o.role == OUT:
            continue
        group = o.name.partition(".")[0]
        value = read[group if group != o.name else o.name]
        if isinstance(value, list | tuple):
            at = taken.get(group, 0)
            value, taken[group] = value[at], at + 1
        found[o.name] = fitting(workload.op, o.name, value, o.shape, o.dtype, device).reshape(o.shape)
    return found
