"""What the lanes of a warp exchange by shuffles, and sums over a loop that shuffles can read."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

from tinygrad import UOp, dtypes

from kernels import backends
from kernels.ops.kit.allot import Allotter
from kernels.tinygrad.uops import Ops

WARP = 32
BITS = (16, 8, 4, 2, 1)
"""The bits of a lane's number, the highest first."""


def other_lane(value: UOp, bit: int, device: str) -> UOp:
    """float32 `value` of the lane whose number differs in `bit`."""
    return UOp(Ops.CUSTOM, src=(value,), arg=backends.find(device).shuffled(bit), dtype=dtypes.float32)


def across(value: UOp, join: Callable[[UOp, UOp], UOp], device: str, bits: Sequence[int] = BITS) -> UOp:
    """float32 `value` joined over the lanes whose numbers differ in `bits` only, by default over the whole warp. All of
    these lanes get the same result, to the bit; `join` must be commutative."""
    for bit in bits:
        value = join(value, other_lane(value, bit, device))
    return value


def warp_sum(value: UOp, device: str) -> UOp:
    """The sum of every lane's value, in every lane."""
    return across(value, operator.add, device)


def accumulate(values: Sequence[UOp], turn: UOp, outside: tuple[UOp, ...], allot: Allotter) -> list[UOp]:
    """Each of `values` summed over the loop `turn`, in a register of its own. `outside`: the loops around `turn`.

    This is not Ops.REDUCE: a CUSTOM op, as the shuffle is one, would be handed the array that a REDUCE ends up in and
    not the number in it.
    """
    registers = allot.registers(len(values))
    start = registers.after(*outside)
    zeroed = registers.after(UOp.group(*[start[i].store(0.0) for i in range(len(values))]))
    inside_turn = zeroed.after(turn)
    added = UOp.group(*[inside_turn[i].store(inside_turn[i].load() + v) for i, v in enumerate(values)]).end(turn)
    final = registers.after(added)
    return [final[i].load() for i in range(len(values))]
