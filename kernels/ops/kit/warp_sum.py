"""Sums of a warp: over its lanes, by shuffles, and over a loop, each lane's in registers."""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes

from kernels import backends
from kernels.tinygrad.uops import AddrSpace, Ops

WARP = 32


def warp_sum(value: UOp, device: str) -> UOp:
    """The sum of every lane's value, in every lane."""
    for bit in (16, 8, 4, 2, 1):
        value = value + other_lane(value, bit, device)
    return value


def other_lane(value: UOp, bit: int, device: str) -> UOp:
    """float32 `value` of the lane whose number differs in `bit`."""
    return UOp(Ops.CUSTOM, src=(value,), arg=backends.find(device).shuffled(bit), dtype=dtypes.float32)


def accumulate(values: Sequence[UOp], turn: UOp, outside: tuple[UOp, ...], number: int) -> list[UOp]:
    """Each value summed over `turn`, in a register of its own. Not Ops.REDUCE: a CUSTOM op, as the shuffle is one, is
    handed the array that a REDUCE ends up in instead of its number."""
    registers = UOp.placeholder((len(values),), dtypes.float32, slot=number, addrspace=AddrSpace.REG)
    start = registers.after(*outside)
    zeroed = registers.after(UOp.group(*[start[i].store(0.0) for i in range(len(values))]))
    inside_turn = zeroed.after(turn)
    added = UOp.group(*[inside_turn[i].store(inside_turn[i].load() + v) for i, v in enumerate(values)]).end(turn)
    final = registers.after(added)
    return [final[i].load() for i in range(len(values))]
