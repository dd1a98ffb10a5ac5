"""Activations quantised to int8, and what the ops over them compute. The x_dtype of their workloads is `Q8`.

A row of k columns is k / BLOCK blocks of BLOCK columns, each of WORDS int32 words:
    0..7   the quants, four int8 a word, the first in the lowest byte
    8      the bits of a float32: the scale, max |x| / 127; a quant is x / scale, rounded to the nearest
    9      the bits of a float32: the scale times the sum of the quants
    10     the bits of a float32: the scale times the sum of the first 16 quants
A block whose largest |x| is below SMALLEST has the scale 0, and quants of 0. A block with a NaN or an infinity has the
scale NaN, and quants of 0, so that every product with its row is NaN.

Weights of these ops are tiled (`kernels.formats.tiles`). `linear`, `gate_up`, `head_linear` and `expert_linear` have
the specs of the ops of the same name over floats, and their results are float32. `embed` has no such input; with the
x_dtype `Q8` its table is tiled. tinygrad is not imported here, since a plan is made without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from db.records import Workload
from kernels.formats.tiles import TILED_FORMATS
from kernels.ops.spec import FLOATS, ActivationSpec, KernelError, Spec

Q8 = "q8"
"""The dtype of quantised activations, as a workload names it."""
BLOCK = 32
WORDS = 11
SCALE, SUM, HALF_SUM = 8, 9, 10
"""Numbers of the words that are not quants."""
SMALLEST = 2.0**-100
Q8_FORMATS = TILED_FORMATS
"""The formats that have kernels over quantised activations."""

_S = TypeVar("_S", bound=Spec)


@dataclass(frozen=True)
class Quantise(ActivationSpec):
    """x int32 [m * rows, n / BLOCK, WORDS]: the first n columns of each row of values [m * rows, x_row], quantised.

    eps: that of an RMSNorm, which comes first and whose weight is the operand `norm` [n]; None for no norm. rows: the
    rows of a token, one for each expert that it uses. The dtype of the result is Q8, whatever is asked for.
    """

    op: ClassVar[str] = "quantise"
    n: int
    x_row: int
    eps: float | None = None
    rows: int = 1

    def workload(self, m: int = 1, x_dtype: str = "float32", out_dtype: str | None = None) -> Workload:
        return super().workload(m, x_dtype, Q8)

    def check(self, w: Workload) -> None:
        self.positive("eps", "rows")
        if self.x_row < self.n or self.n % BLOCK or self.n < BLOCK:
            raise self.refuse(f"n is whole blocks of {BLOCK} columns, and x_row is n at least")


def over_floats(w: Workload) -> Workload:
    """The workload of the same op over float32. Raises KernelError for dtypes that are not those of an op over
    quantised activations."""
    if w.op == Quantise.op and w.x_dtype in FLOATS and w.out_dtype == Q8:
        return replace(w, out_dtype=w.x_dtype)
    if w.x_dtype != Q8 or w.out_dtype != "float32":
        raise KernelError(f"{w.op} over int8 takes {Q8} and gives float32, saw {w.x_dtype} -> {w.out_dtype}")
    return replace(w, x_dtype="float32")


def spec_of(kind: type[_S], w: Workload) -> _S:
    """The spec of a workload over quantised activations. Raises KernelError as `Spec.from_workload` does, and for a
    format without kernels."""
    spec = kind.from_workload(over_floats(w))
    if w.op != Quantise.op:
        check_format(spec, w.format)
    return spec


def check_format(spec: Spec, format: str) -> None:
    """Raises KernelError for a format without kernels."""
    if format not in Q8_FORMATS:
        raise KernelError(f"no kernel of {spec.op} over int8 for {format}; there are {', '.join(Q8_FORMATS)}")


def q8_shape(rows: int, k: int) -> tuple[int, int, int]:
    """The shape of quantised activations of `rows` rows of k columns."""
    return rows, k // BLOCK, WORDS
