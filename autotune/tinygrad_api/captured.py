"""Records the launches of captured functions (TinyJit): their names, and the time of each launch alone.

It replaces `tinygrad.engine.jit.run_linear`, the one function by which TinyJit replays captured functions, so it works
for every model: ours and tinygrad.llm's. Replays by `kernels.tinygrad.host_replay` are timed by the executor: one of
its launches is over before the next one begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from tinygrad.engine import jit
from tinygrad.helpers import Context, GlobalCounters, ansistrip
from tinygrad.uop.ops import Ops, UOp

from kernels.tinygrad.host_launch import COPY
from kernels.tinygrad.host_replay import watched

__all__ = ["COPY", "RecordedLaunch", "one_at_a_time", "recorded_launches"]


@dataclass(frozen=True)
class RecordedLaunch:
    """A launch, or a copy between buffers. seconds: on the device's clock (`kernels.backends`), 0 if not timed."""

    name: str
    seconds: float = 0.0


def one_at_a_time() -> AbstractContextManager[Any]:
    """A context in which captured functions launch their kernels one by one instead of in a graph."""
    context: AbstractContextManager[Any] = Context(JIT=2)
    return context


@contextmanager
def recorded_launches(timed: bool = False) -> Iterator[list[RecordedLaunch]]:
    """Records the launches of captured functions in the context, in order. timed: wait for each launch and time it."""
    found: list[RecordedLaunch] = []
    replay = jit.run_linear

    def watch(linear: UOp, var_vals: dict[str, int] | None = None, **options: Any) -> None:
        for call in linear.src if timed else ():
            before = GlobalCounters.time_sum_s
            replay(UOp(Ops.LINEAR, src=(call,)), var_vals, **{**options, "wait": True})
            seconds = GlobalCounters.time_sum_s - before
            names = _names(call)
            found.extend(RecordedLaunch(name, seconds / len(names)) for name in names)
        if not timed:
            replay(linear, var_vals, **options)
            found.extend(RecordedLaunch(name) for call in linear.src for name in _names(call))

    def note(names: Sequence[str], seconds: Sequence[float]) -> None:
        found.extend(RecordedLaunch(name, each if timed else 0.0) for name, each in zip(names, seconds, strict=True))

    jit.run_linear = watch
    try:
        with watched(note):
            yield found
    finally:
        jit.run_linear = replay


def _names(call: UOp) -> list[str]:
    """The names of the kernels in a call. A graph contains many kernels."""
    what = call.src[0]
    if what.op is Ops.PROGRAM:
        return [ansistrip(what.arg.name)]
    if what.op is Ops.CUSTOM_FUNCTION and what.arg == "graph":
        return [name for inner in what.src[0].src for name in _names(inner)]
    return [COPY if what.op is Ops.COPY else str(what.arg)]
