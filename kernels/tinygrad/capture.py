"""Functions that TinyJit captures in their first call instead of the second.

TinyJit (tinygrad 0.14, engine/jit.py) runs a function once as it is before it captures it, so that what the function
makes only once, such as lazily made state, stays out of what is replayed. Functions here make no such state: weights,
caches and inputs are realized before, and the state of the random numbers is by `seeded`. The first run would only
build and schedule all launches for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad import Tensor, TinyJit


def captured(function: Callable[..., Tensor]) -> Any:
    """`function` as a TinyJit that captures in the first call. Every Tensor that it reads must be realized by then."""
    jit = TinyJit(function)
    jit.cnt = 1  # calls so far: TinyJit captures where it is 1, and goes on from there
    return jit


def seeded(device: str) -> None:
    """Makes the state of `device`'s random numbers, if there is none yet; none are drawn.

    Tensor.rand makes it on demand. In a captured function that would set it back in every replay: the same numbers
    again and again.
    """
    Tensor.realize(*Tensor._next_counter(device, 0))
