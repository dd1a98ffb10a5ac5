"""What `linear`, `rmsnorm_linear`, `gate_up` and `head_linear` compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from db.records import Workload
from kernels.ops.spec import Parts, Spec, WeightSpec

ACTS = ("silu", "gelu", "swiglu_oai")
MAX_PARTS = 6


def check_act(spec: Spec, act: str) -> None:
    """Raises KernelError for an unknown activation."""
    if act not in ACTS:
        raise spec.refuse(f"there is no activation {act!r}, only {', '.join(ACTS)}")


@dataclass(frozen=True)
class Linear(WeightSpec):
    """out[m, n] = x[m, k] W[n, k]^T, followed by the epilogue. act: the activation of an epilogue with a gate."""

    op: ClassVar[str] = "linear"
    epilogue: str = "none"
    act: str = "silu"

    def check(self, w: Workload) -> None:
        check_act(self, self.act)


@dataclass(frozen=True)
class RmsNormLinear(Spec):
    """RMSNorm of x, then its product with several weights: out[m, n] holds the results side by side.

    parts: (format, rows) of each weight, in order; neighbours of the same format count as one weight. k: columns of the
    weights. x_row: columns of a row of x, of which the first k are used. eps: added to the mean square.
    """

    op: ClassVar[str] = "rmsnorm_linear"
    parts: Parts
    k: int
    x_row: int
    eps: float
    epilogue: str = "none"

    @property
    def format(self) -> str:
        return self.parts[0][0]

    @property
    def n(self) -> int:
        return sum(rows for _, rows in self.parts)

    def check(self, w: Workload) -> None:
        self.positive("eps")
        if not 1 <= len(self.parts) <= MAX_PARTS or min(rows for _, rows in self.parts) < 1:
            raise self.refuse(f"parts are 1 to {MAX_PARTS} weights of 1 row or more")
        if self.x_row < self.k:
            raise self.refuse(f"x_row is at least k={self.k}")


@dataclass(frozen=True)
class GateUp(WeightSpec):
    """out[m, n] = act(gate x) * (up x). `format` is the format of the weight gate, `up` that of the weight up. eps:
    that of an RMSNorm of x, which comes first; None for no norm."""

    op: ClassVar[str] = "gate_up"
    up: str
    act: str = "silu"
    eps: float | None = None

    def check(self, w: Workload) -> None:
        check_act(self, self.act)
        self.positive("eps")


@dataclass(frozen=True)
class HeadLinear(WeightSpec):
    """out[m, heads, n] = W[heads, n, k] x[m, heads, k]. A row of x has `row` columns; those of head h are the columns
    h * step .. h * step + k - 1."""

    op: ClassVar[str] = "head_linear"
    heads: int
    step: int
    row: int

    def check(self, w: Workload) -> None:
        self.positive("heads")
        if self.step < self.k or self.row < (self.heads - 1) * self.step + self.k:
            raise self.refuse(f"{self.heads} heads of {self.k} columns do not fit step and row")
