"""Calls of the prelude's C functions, as UOps, and the loops of kernels that make them."""

from __future__ import annotations

from tinygrad import UOp, dtypes

from kernels.ops.kit.loops import constant
from kernels.tinygrad.prelude import PRELUDE
from kernels.tinygrad.uops import DType, Ops


def call(function: str, *operands: UOp, dtype: DType = dtypes.float32) -> UOp:
    """A function of the prelude. Places in memory are operands that were not loaded."""
    assert f" {function}(" in PRELUDE, function
    code = f"{function}({', '.join(f'{{{i}}}' for i in range(len(operands)))})"
    return text(code, *operands, dtype=dtype)


def text(code: str, *operands: UOp, dtype: DType = dtypes.float32) -> UOp:
    """An expression of C, where `{0}` is the first operand."""
    return UOp(Ops.CUSTOM, src=operands, arg=code, dtype=dtype)


def outer(size: int, number: int) -> UOp:
    """A loop of that number over results, or the constant 0 where `size` is 1."""
    return UOp.range(size, number) if size > 1 else constant(0)


def ranges(*loops: UOp) -> tuple[UOp, ...]:
    """Those of `loops` that are ranges."""
    return tuple(at for at in loops if at.op is Ops.RANGE)
