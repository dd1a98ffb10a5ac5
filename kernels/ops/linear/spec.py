"""What the ops over packed weights compute: `linear` and its relatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from db.records import Workload
from kernels.ops.spec import Parts, Spec, WeightSpec

ACTS = ("silu", "gelu", "swiglu_oai")
MAX_PARTS = 6


def check_act(spec: Spec, act: str) -> None:
    """Raises KernelError for an activation that there is not."""
    if act not in ACTS:
        raise spec.refuse(f"there is no activation {act!r}, only {', '.join(ACTS)}")


@dataclass(frozen=True)
class Linear(WeightSpec):
    """out[m, n] = x[m, k] W[n, k]^T, then the terms of the epilogue. act: of an epilogue with a gate."""

    op: ClassVar[str] = "linear"
    epilogue: str = "none"
    act: str = "silu"

    def check(self, w: Workload) -> None:
        check_act(self, self.act)


@dataclass(frozen=True)
class RmsNormLinear(Spec):
    """RMSNorm of x, then every weight that takes it: out[m, n] holds their results side by side.

    parts: (format, rows) of each weight in order; equal neighbours are one. k: columns of the weights, x_row: of x's
    rows, of which the first k are meant. eps: added to the mean square.
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
    """out[m, n] = act(gate x) * (up x). format: of gate, up: of the other weight. eps: that of an RMSNorm that x goes
    through first, None where there is no norm."""

    op: ClassVar[str] = "gate_up"
    up: str
    act: str = "silu"
    eps: float | None = None

    def check(self, w: Workload) -> None:
        check_act(self, self.act)
        self.positive("eps")


@dataclass(frozen=True)
class HeadLinear(WeightSpec):
    """out[m, heads, n] = W[heads, n, k] x[m, heads, k]. x are rows of `row` columns; head h has the columns
    h * step .. h * step + k."""

    op: ClassVar[str] = "head_linear"
    heads: int
    step: int
    row: int

    def check(self, w: Workload) -> None:
        self.positive("heads")
        if self.step < self.k or self.row < (self.heads - 1) * self.step + self.k:
            raise self.refuse(f"{self.heads} heads of {self.k} columns do not fit step and row")
