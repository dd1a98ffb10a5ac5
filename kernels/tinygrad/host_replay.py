"""Replays what TinyJit captured as one call of C, if all of it is launches and copies of this machine's processor.

A replay by TinyJit takes some 60 us of Python a launch. `kernels.host.executor` takes below 1 us, and shares a launch
out among threads. tinygrad 0.14 launches on its CPU in the calling thread: nothing is under way when a replay begins,
and all is done when it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeGuard

from tinygrad import UOp, dtypes
from tinygrad.device import Buffer
from tinygrad.engine.jit import CapturedJit
from tinygrad.engine.realize import get_call_arg_uops, get_call_outs_ins
from tinygrad.helpers import DEBUG, PROFILE
from tinygrad.uop.ops import Ops

from kernels.host.executor import Argument, Given, LaunchError, Table, copy
from kernels.tinygrad.host_launch import CORE, NotHostError, address, host_buffer, host_launch

COPIED_NBYTES = 1 << 16  # inputs up to this size are copied before the launches

Watch = Callable[[Sequence[str], Sequence[float]], None]
"""Is told the names of the launches of a replay, and the seconds of each."""

_watch: Watch | None = None


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Tells `watch` of each replay in the context that is not by TinyJit."""
    global _watch
    before, _watch = _watch, watch
    try:
        yield
    finally:
        _watch = before


class HostReplay(CapturedJit):  # type: ignore[misc]
    """What was captured. refusal: why TinyJit replays it; "" if the executor does.

    Small inputs are copied to buffers of its own by its first launches: a call may be given what the one before
    returned, which it overwrites.
    """

    def __init__(self, found: CapturedJit) -> None:
        super().__init__(found.ret, found._linear, found.expected_names, found.expected_input_info)
        self.refusal = ""
        self._table: Table | None = None
        self._addresses: tuple[int, ...] | None = None  # of the inputs of the call before, if they may come again

    def __call__(self, input_uops: list[UOp], var_vals: dict[str, int]) -> Any:
        self._addresses = None
        if self._table is None and not self.refusal:
            try:
                self._build(input_uops)
            except (NotHostError, LaunchError) as e:
                self.refusal = str(e)
        # an input that is not copied must not be overwritten before it is read
        if self._table is None or _shown() or any(input_uops[i] in self._written_uops for i in self._direct):
            return super().__call__(input_uops, var_vals)
        self._addresses = tuple(map(address, input_uops))
        self._run(var_vals)
        return self.ret

    def again(self, var_vals: dict[str, int]) -> bool:
        """Runs it with the inputs of the call before. False if TinyJit must."""
        if self._addresses is None or _shown():
            return False
        self._run(var_vals)
        return True

    def _run(self, var_vals: dict[str, int]) -> None:
        assert self._table is not None
        assert self._addresses is not None
        values = (*self._addresses, *(var_vals[name] for name in self._variables))
        if _watch is None:
            self._table.run(*values)
        else:
            before = self._table.seconds_each.copy()
            self._table.run(*values, timed=True)
            _watch(self._names, (self._table.seconds_each - before)[-len(self._names) :].tolist())

    def _build(self, inputs: Sequence[UOp]) -> None:
        """Raises NotHostError, LaunchError."""
        calls = self.linear.src
        programs = [call.src[0].arg for call in calls if call.src[0].op is Ops.PROGRAM]
        self._variables = sorted({v.expr for info in programs for v in info.vars} - {CORE})
        given = {name: Given(len(inputs) + i) for i, name in enumerate(self._variables)}
        launches = [host_launch(call, inputs, given) for call in calls]
        written = {slot for call in calls for slot in _written_slots(call)}
        own = {
            i: Buffer(u.device, nbytes, dtypes.uint8, preallocate=True)
            for i, u in enumerate(inputs)
            if (nbytes := host_buffer(u).nbytes) <= COPIED_NBYTES and i not in written
        }
        at = {i: buffer._buf.va_addr for i, buffer in own.items()}
        self._direct = [i for i in range(len(inputs)) if i not in own]
        table = [copy(at[i], Given(i), buffer.nbytes) for i, buffer in own.items()]
        table += [
            replace(l.launch, arguments=tuple(at[a.index] + a.add if _copied(a, at) else a for a in l.launch.arguments))
            for l in launches
        ]
        self._table = Table(table, len(inputs) + len(given))
        self._names = [l.name for l in launches]
        self._keeps = own, launches


def _copied(argument: Argument, at: Mapping[int, int]) -> TypeGuard[Given]:
    return isinstance(argument, Given) and argument.index in at


def _written_slots(call: UOp) -> Iterator[int]:
    """The inputs that a call writes."""
    uops = get_call_arg_uops(call)
    for out in get_call_outs_ins(call)[0]:
        yield from (u.arg.slot for u in uops[out].toposort() if u.op is Ops.PARAM)


def _shown() -> bool:
    """Whether tinygrad shows each launch to the user."""
    return bool(DEBUG >= 2 or PROFILE)
