"""What `argmax` computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from db.records import Workload
from kernels.ops.spec import ActivationSpec

MAX_N = 1 << 24


@dataclass(frozen=True)
class ArgMax(ActivationSpec):
    """out[m, 1]: the index of the largest of logits [m, n]."""

    op: ClassVar[str] = "argmax"
    n: int

    def check(self, w: Workload) -> None:
        if self.n > MAX_N:
            raise self.refuse(f"no kernel for n above {MAX_N}")
