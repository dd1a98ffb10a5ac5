"""Loops, what is reduced over them, and sums that are written out."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

from tinygrad import UOp, dtypes

from kernels.tinygrad.uops import AxisType, Ops


def constant(value: int) -> UOp:
    """A constant integer, as an index."""
    return UOp.const(value, dtypes.weakint)


def loop(size: int, number: int, kind: AxisType = AxisType.REDUCE) -> UOp:
    """A range of that number, or the constant 0 where `size` is 1."""
    return UOp.range(size, number, kind) if size > 1 else constant(0)


def reduce(op: Ops, value: UOp, *loops: UOp) -> UOp:
    """`value` reduced by `op` over those of `loops` that are ranges; `value` itself where none is."""
    ranges = [at for at in loops if at.op is Ops.RANGE]
    return UOp(Ops.REDUCE, src=(value, *ranges), arg=(op, 0)) if ranges else value


def reduce_add(value: UOp, *loops: UOp) -> UOp:
    return reduce(Ops.ADD, value, *loops)


def reduce_max(value: UOp, *loops: UOp) -> UOp:
    return reduce(Ops.MAX, value, *loops)


def total(values: Sequence[UOp]) -> UOp:
    """The sum of `values`, from the first to the last; there must be one."""
    return functools.reduce(operator.add, values)


def largest(values: Sequence[UOp]) -> UOp:
    """The largest of `values`; there must be one."""
    return functools.reduce(UOp.maximum, values)
