"""Calls of the prelude's C functions, as UOps, and the loops of kernels that make them."""

from __future__ import annotations

from tinygrad import UOp, dtypes

from kernels.ops.kit.loops import constant
from kernels.tinygrad.prelude import PRELUDE
from kernels.tinygrad.uops import AxisType, DType, Ops

MOST_SLICES = 64


def call(function: str, *operands: UOp, lane: UOp | None = None, dtype: DType = dtypes.float32) -> UOp:
    """A function of the prelude. Places in memory are operands that were not loaded. lane: the loop over the vector's
    lanes, of a function whose operands do not depend on it."""
    assert f" {function}(" in PRELUDE, function
    code = f"{function}({', '.join(f'{{{i}}}' for i in range(len(operands)))})"
    return text(code, *operands, *(() if lane is None else (lane,)), dtype=dtype)


def text(code: str, *operands: UOp, dtype: DType = dtypes.float32) -> UOp:
    """An expression of C, where `{0}` is the first operand."""
    return UOp(Ops.CUSTOM, src=operands, arg=code, dtype=dtype)


def outer(size: int, number: int) -> UOp:
    """A loop of that number over results, or the constant 0 where `size` is 1."""
    return UOp.range(size, number) if size > 1 else constant(0)


def slice_counts(size: int) -> tuple[int, ...]:
    """The numbers of equal slices that a loop can be cut into."""
    return tuple(count for count in range(1, MOST_SLICES + 1) if size % count == 0)


def sliced(size: int, slices: int) -> tuple[tuple[UOp, UOp], UOp]:
    """A loop in slices, which are numbered by what a host's threads are told: its ranges, 0 and 1, and the index."""
    which = UOp.range(slices, 0, AxisType.THREAD) if slices > 1 else constant(0)
    within = outer(size // slices, 1)
    return (which, within), which * (size // slices) + within


def ranges(*loops: UOp) -> tuple[UOp, ...]:
    """Those of `loops` that are ranges."""
    return tuple(at for at in loops if at.op is Ops.RANGE)
