"""RMSNorm as a prologue of row kernels: x * norm goes into the sums, 1/rms(x) multiplies what comes out."""

from __future__ import annotations

from tinygrad import UOp

from db.records import Workload
from kernels.ops.linear.dot import Index, plain_x
from kernels.ops.op import DTYPES, WEIGHT, Args, KernelError, Operand


def normed(args: Args, index: Index, column: UOp) -> UOp:
    """x [m, k] times the norm's weight [k]."""
    return plain_x(args, index, column) * args["norm"][column]


def eps(w: Workload) -> float:
    """The extra `eps`. Raises KernelError where it is no positive number."""
    text = str(dict(w.extra).get("eps", ""))
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise KernelError(f"{w.op} needs the extra eps, a number between 0 and 1; saw {text!r}")
    return value


def inverse_rms(w: Workload, squares: UOp) -> UOp:
    """1 / sqrt(mean of squares + eps), from their sum."""
    return (squares * (1.0 / w.k) + eps(w)).sqrt().reciprocal()


def norm_operands(w: Workload) -> tuple[Operand, ...]:
    eps(w)
    return (Operand("norm", (w.k,), DTYPES["float32"], WEIGHT),)
