"""Functions that TinyJit captures in their first call instead of the second.

TinyJit (tinygrad 0.14, engine/jit.py) runs a function once as it is before it captures it, so that what the function
makes only once, such as lazily made state, stays out of what is replayed. Functions here make no such state: weights,
caches and inputs are realized before, and the state of the random numbers is by `seeded`. The first run would only
build and schedule all launches for nothing.

On this machine's own processor, what is captured is replayed by `kernels.tinygrad.host_replay`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tinygrad import Tensor, UOp
from tinygrad.engine.jit import CapturedJit, _TinyJit

from kernels.tinygrad.host_replay import HostReplay


class Bound(NamedTuple):
    """A Variable with a value, which tinygrad takes as a UOp that is slower to make."""

    variable: UOp
    value: int

    def bind(self) -> UOp:
        """Raises AssertionError, as tinygrad does, for a value outside of the Variable's limits."""
        return self.variable.bind(self.value)


def seeded(device: str) -> None:
    """Makes the state of `device`'s random numbers, if there is none yet; none are drawn.

    Tensor.rand makes it on demand. In a captured function that would set it back in every replay: the same numbers
    again and again.
    """
    Tensor.realize(*Tensor._next_counter(device, 0))


class Captured(_TinyJit):  # type: ignore[misc]
    """A function as a TinyJit that captures in its first call. Where the executor replays it, a call with the Tensors
    and Variables of the call before is not checked again."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        """Every Tensor that the function reads must be realized by its first call."""
        self._replay: HostReplay | None = None
        self._again: tuple[_Expected, ...] = ()  # what a call needs not be checked with
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
        if self._replay is not None and len(args) == len(self._again):
            values: dict[str, int] = {}
            for arg, expected in zip(args, self._again, strict=True):
                if isinstance(arg, Bound):
                    if arg.variable is not expected.what or not expected.least <= arg.value <= expected.most:
                        break
                    values[expected.name] = arg.value
                elif arg.uop is not expected.what:
                    break
            else:
                if self._replay.again(values):
                    again: Tensor = self._replay.ret
                    return again
        self._again = ()
        found: Tensor = super().__call__(*(a.bind() if isinstance(a, Bound) else a for a in args))
        self._again = tuple(_Expected.of(a) for a in args)
        return found


class _Expected(NamedTuple):
    """The buffer or the Variable of an argument, and the Variable's name and limits."""

    what: UOp
    name: str = ""
    least: int = 0
    most: int = 0

    @staticmethod
    def of(arg: Tensor | Bound) -> _Expected:
        if isinstance(arg, Bound):
            return _Expected(arg.variable, arg.variable.expr, arg.variable.vmin, arg.variable.vmax)
        return _Expected(arg.uop)
