"""Slots and loop numbers of one kernel, given out so that no two are the same."""

from __future__ import annotations

import itertools

from tinygrad import UOp, dtypes

from kernels.ops.kit.loops import loop
from kernels.tinygrad.uops import AddrSpace, AxisType, DType

FIRST_SLOT = 200  # tinygrad numbers the arrays that it adds itself from 0
FIRST_LOOP = 21  # a kernel chooses smaller numbers itself; opts, and so stored schedules, name loops by their numbers


class Allotter:
    """Makes the arrays and the private loops of one kernel. tinygrad takes two arrays with the same slot, or two ranges
    with the same number, for one."""

    def __init__(self) -> None:
        self._slots, self._numbers = itertools.count(FIRST_SLOT), itertools.count(FIRST_LOOP)

    def registers(self, *shape: int, dtype: DType = dtypes.float32) -> UOp:
        """An array of each thread's own."""
        return UOp.placeholder(shape, dtype, next(self._slots), AddrSpace.REG)

    def local(self, *shape: int, dtype: DType = dtypes.float32) -> UOp:
        """An array in the local memory of a workgroup."""
        return UOp.placeholder(shape, dtype, next(self._slots), AddrSpace.LOCAL)

    def number(self) -> int:
        """The number of a private loop. Loops made later have larger numbers."""
        return next(self._numbers)

    def range(self, size: int, kind: AxisType = AxisType.REDUCE) -> UOp:
        """A private loop, even where `size` is 1."""
        return UOp.range(size, self.number(), kind)

    def loop(self, size: int, kind: AxisType = AxisType.REDUCE) -> UOp:
        """A private loop, or the constant 0 where `size` is 1."""
        return loop(size, self.number(), kind)
