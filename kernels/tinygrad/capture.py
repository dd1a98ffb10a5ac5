"""Functions that TinyJit captures in their first call instead of the second.

TinyJit (tinygrad 0.14, engine/jit.py) runs a function once as it is before it captures it, so that what the function
makes only once, such as lazily made state, stays out of what is replayed. Functions here make no such state: weights,
caches and inputs are realized before, and the state of the random numbers is by `seeded`. The first run would only
build and schedule all launches for nothing.

On this machine's own processor, what is captured is replayed by `kernels.tinygrad.host_replay`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tinygrad import Tensor, UOp
from tinygrad.engine.jit import CapturedJit, _TinyJit

from kernels.tinygrad.host_replay import HostReplay


class Bound(NamedTuple):
    """A Variable with a value, which tinygrad takes as a UOp that is slower to make."""

    variable: UOp
    value: int

    def bind(self) -> UOp:
        return self.variable.bind(self.value)

    def checked(self) -> int:
        """The value. Raises as tinygrad does if it is outside of the Variable's limits."""
        if not self.variable.vmin <= self.value <= self.variable.vmax:
            self.bind()
        return self.value


def seeded(device: str) -> None:
    """Makes the state of `device`'s random numbers, if there is none yet; none are drawn.

    Tensor.rand makes it on demand. In a captured function that would set it back in every replay: the same numbers
    again and again.
    """
    Tensor.realize(*Tensor._next_counter(device, 0))


class Captured(_TinyJit):  # type: ignore[misc]
    """A function as a TinyJit that captures in its first call. Where the executor replays it, a call with the Tensors
    of the call before is not checked again."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        """Every Tensor that the function reads must be realized by its first call."""
        self._replay: HostReplay | None = None
        self._checked: tuple[UOp, ...] = ()  # the Tensors of the call before
        super().__init__(function)
        self.cnt = 1  # calls so far: TinyJit captures where it is 1, and goes on from there

    @property
    def captured(self) -> HostReplay | None:
        return self._replay

    @captured.setter
    def captured(self, found: CapturedJit | None) -> None:
        self._replay = None if found is None else HostReplay(found)

    @property
    def refusal(self) -> str:
        """Why TinyJit replays what was captured; "" if the executor does."""
        return "nothing is captured" if self._replay is None else self._replay.refusal

    def __call__(self, *args: Tensor | Bound) -> Tensor:
        given = tuple(a.uop for a in args if isinstance(a, Tensor))
        if self._replay is not None and _same(given, self._checked):
            values = {a.variable.expr: a.checked() for a in args if isinstance(a, Bound)}
            if self._replay.again(values):
                again: Tensor = self._replay.ret
                return again
        self._checked = ()
        found: Tensor = super().__call__(*(a.bind() if isinstance(a, Bound) else a for a in args))
        self._checked = given
        return found


def _same(one: Sequence[UOp], other: Sequence[UOp]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))
