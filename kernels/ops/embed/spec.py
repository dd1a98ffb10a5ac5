"""What `embed` computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from db.records import Workload
from kernels.ops.spec import WeightSpec


@dataclass(frozen=True)
class Embed(WeightSpec):
    """out[m, k] = rows ids[m] of a weight [n, k], times scale."""

    op: ClassVar[str] = "embed"
    scale: float = 1.0

    def check(self, w: Workload) -> None:
        self.positive("scale")
