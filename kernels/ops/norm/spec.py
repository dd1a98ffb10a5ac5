"""What `rmsnorm` and `rmsnorm_add` compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from db.records import Workload
from kernels.ops.spec import ActivationSpec


@dataclass(frozen=True)
class RmsNorm(ActivationSpec):
    """out[m, n] = x * rsqrt(mean of x^2 + eps) * weight [n / heads], separately for each of the `heads` parts of a
    row."""

    op: ClassVar[str] = "rmsnorm"
    n: int
    eps: float
    heads: int = 1

    def check(self, w: Workload) -> None:
        self.positive("eps")
        if self.heads < 1 or self.n % self.heads:
            raise self.refuse(f"no kernel for heads={self.heads}: they divide n")


@dataclass(frozen=True)
class RmsNormAdd(RmsNorm):
    """`RmsNorm` plus a residual [m, n]."""

    op: ClassVar[str] = "rmsnorm_add"
