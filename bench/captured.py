"""What benches that compare Tensor code share: seconds and launches of a captured function. Not a bench itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tinygrad import Device, GlobalCounters, Tensor, TinyJit


@dataclass(frozen=True)
class Captured:
    """Of one of the calls that a function makes: how many launches, and its share of the function's seconds."""

    launches: float
    seconds: float


def captured(function: Callable[[], Tensor | list[Tensor]], calls: int, rounds: int = 10) -> Captured:
    """Runs `function`, which makes `calls` calls of what is measured, as TinyJit replays it.

    Seconds are the median of `rounds` by the wall clock, until the device is done: a captured decode step has the
    host's share of a launch too.
    """

    @TinyJit
    def step() -> None:
        results = function()
        Tensor.realize(*(results if isinstance(results, list) else [results]))

    GlobalCounters.reset()
    step()  # not captured yet: each launch counts
    launches = GlobalCounters.kernel_count
    for _ in range(2):
        step()
    Device.default.synchronize()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        Device.default.synchronize()
        seconds.append(time.perf_counter() - start)
    return Captured(launches / calls, float(np.median(seconds)) / calls)


def chained(call: Callable[[Tensor, int], Tensor | tuple[Tensor, ...]], x: Tensor, calls: int, rounds: int) -> Captured:
    """`call(input, number)` -> its results, each call waiting for the one before: its input is x plus a trace of that
    one's last result, added by a launch that counts in the seconds, as what feeds an op in a model does, and not in
    the launches.
    """

    def function() -> list[Tensor]:
        kept = [x]
        for number in range(calls):
            trace = kept[-1].reshape(-1)[:1].cast(x.dtype).reshape(*[1] * x.ndim) * 1e-6
            results = call((x + trace).contiguous(), number)
            kept += [r.contiguous() for r in (results if isinstance(results, tuple) else (results,))]
        return kept[1:]

    found = captured(function, calls, rounds)
    return Captured(found.launches - 1, found.seconds)
