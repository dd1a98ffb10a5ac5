"""Measures seconds and launches of a captured function, for benches that compare Tensor code. Not a bench itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tinygrad import Device, GlobalCounters, Tensor, TinyJit


@dataclass(frozen=True)
class Captured:
    """Launches and seconds of one call, averaged over the calls that a captured function makes."""

    launches: float
    seconds: float


def captured(function: Callable[[], Tensor | list[Tensor]], calls: int, rounds: int = 10) -> Captured:
    """Measures `function`, which makes `calls` calls, as TinyJit replays it.

    Seconds are the median of `rounds` replays by the wall clock, until the device is done. They include the host's
    share of each launch, as in a captured decode step.
    """

    @TinyJit
    def step() -> None:
        results = function()
        Tensor.realize(*(results if isinstance(results, list) else [results]))

    GlobalCounters.reset()
    step()  # not captured yet, so that every launch is counted
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
    """Measures `call(input, number)` in a chain, in which each call waits for the one before.

    The input of each call is x plus a trace of the last call's result. A separate launch adds the trace. It is included
    in the seconds, like a launch that produces an op's input in a model, but not in the launches.
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
