"""Launches of tinygrad's CPU device as `kernels.host.executor` takes them: the address of a program's code, those of
its buffers, and Variables.

Calls of tinygrad's queue of its CPU (HCQ2=1) are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygrad import UOp
from tinygrad.device import Buffer
from tinygrad.engine.realize import get_call_arg_uops, get_runtime, resolve_params
from tinygrad.helpers import ansistrip
from tinygrad.uop.ops import Ops, ProgramInfo

from db.errors import AutotuneError
from kernels import backends
from kernels.host.executor import MOST_ARGUMENTS, MOST_SLICES, Argument, Given, Launch, copy

CORE = "core_id"  # tinygrad's name of the Variable that is the number of a slice
COPY = "copy"
_INTEGERS = (4, 8)  # bytes of the Variables that are understood


class NotHostError(AutotuneError, ValueError):
    """A call is no launch of this machine's processor; the message says why."""


@dataclass(frozen=True)
class HostLaunch:
    """A launch, and what must live as long as it is run: buffers, and the program's code."""

    name: str
    launch: Launch
    keeps: list[Any] = field(repr=False)


def host_launch(call: UOp, inputs: Sequence[UOp] = (), given: Mapping[str, Argument] | None = None) -> HostLaunch:
    """A call of a compiled linear. Raises NotHostError for one that only tinygrad can make.

    inputs: the buffers of its PARAMs, by slot; argument i is `Given(i)` then. given: the value of each Variable.
    """
    what = call.src[0]
    if what.op not in (Ops.PROGRAM, Ops.COPY):
        raise NotHostError(f"a {what.op.name} {what.arg} is neither a program nor a copy")
    uops = get_call_arg_uops(call)
    buffers = [host_buffer(u) for u in resolve_params(call, tuple(inputs))]
    arguments = [_argument(u, b, inputs) for u, b in zip(uops, buffers, strict=True)]
    if what.op is Ops.COPY:
        return HostLaunch(COPY, copy(arguments[0], arguments[1], buffers[0].nbytes), [*buffers])
    runtime = get_runtime(buffers[0].device, what)
    launch = program_launch(what.arg, runtime, [arguments[g] for g in what.arg.globals], given or {})
    return HostLaunch(ansistrip(what.arg.name), launch, [*buffers, runtime])


def program_launch(
    info: ProgramInfo, runtime: Any, buffers: Sequence[Argument], given: Mapping[str, Argument]
) -> Launch:
    """A launch of a loaded program over the addresses of its buffers. Raises NotHostError for one that only tinygrad
    can make."""
    if getattr(runtime, "lvp", True):
        raise NotHostError(f"{info.name} takes its arguments as a pointer")
    variables = range(len(buffers), len(buffers) + len(info.vars))
    slices, *others = info.global_size
    if not isinstance(slices, int) or slices > MOST_SLICES or any(size != 1 for size in others):
        raise NotHostError(f"{info.name} has the size {info.global_size}")
    if variables.stop > MOST_ARGUMENTS or any(v.dtype.itemsize not in _INTEGERS for v in info.vars):
        raise NotHostError(f"{info.name} has {variables.stop} arguments, the Variables {info.vars}")
    values = {**given, CORE: 0}
    if missing := [v.expr for v in info.vars if v.expr not in values]:
        raise NotHostError(f"{info.name} reads Variables that are not given: {', '.join(missing)}")
    return Launch(
        runtime.addr,
        (*buffers, *(values[v.expr] for v in info.vars)),
        slices,
        runtime.runtimevars.get(CORE),
        frozenset(i for i, v in zip(variables, info.vars, strict=True) if v.dtype.itemsize == _INTEGERS[0]),
    )


def host_buffer(u: UOp) -> Buffer:
    """A buffer in this machine's memory, allocated. Raises NotHostError for another."""
    try:
        buffer = u.buffer
    except RuntimeError as e:  # no contiguous view
        raise NotHostError(str(e)) from None
    if not isinstance(buffer, Buffer) or not backends.find(buffer.device).host:
        raise NotHostError(f"a buffer is on {u.device}")
    return buffer.ensure_allocated()


def address(u: UOp) -> int:
    """Of a buffer. Raises NotHostError."""
    found: int = host_buffer(u)._buf.va_addr
    return found


def _argument(u: UOp, buffer: Buffer, inputs: Sequence[UOp]) -> Argument:
    found: int = buffer._buf.va_addr
    param = u if u.op is Ops.PARAM else u.src[0] if u.src and u.src[0].op is Ops.PARAM else None
    return found if param is None else Given(param.arg.slot, found - address(inputs[param.arg.slot]))
