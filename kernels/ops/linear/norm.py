"""RMSNorm as a prologue of row kernels: the sums are over x * norm, and the results are multiplied by 1/rms(x)."""

from __future__ import annotations

from tinygrad import UOp

from kernels.ops.linear.dot import Index, given_x
from kernels.ops.op import DTYPES, WEIGHT, Args, Operand


def normed(args: Args, index: Index, column: UOp) -> UOp:
    """x [m, k] times the norm's weight [k]."""
    return given_x(args, index, column) * args["norm"][column]


def inverse_rms(k: int, eps: float, squares: UOp) -> UOp:
    """1 / sqrt(mean of squares + eps), from the sum of k squares."""
    return (squares * (1.0 / k) + eps).sqrt().reciprocal()


def norm_operand(k: int) -> Operand:
    return Operand("norm", (k,), DTYPES["float32"], WEIGHT)
