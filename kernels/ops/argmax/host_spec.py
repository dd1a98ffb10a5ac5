"""What `host_peaks` and `host_argmax` compute: together what `argmax` does, in two launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from db.records import Workload
from kernels.ops.argmax.spec import MAX_N
from kernels.ops.spec import ActivationSpec

LANES = 64
_BLOCK = 1024


class _Blocks(ActivationSpec):
    """Rows of n in blocks of equal length. The last block ends with the row, and may overlap the one before."""

    n: int

    @property
    def block(self) -> int:
        """The length of a block: whole LANES where a row has as many columns."""
        return min(_BLOCK, self.n // LANES * LANES) or self.n

    @property
    def blocks(self) -> int:
        return -(-self.n // self.block)

    def check(self, w: Workload) -> None:
        if self.n > MAX_N:
            raise self.refuse(f"no kernel for n above {MAX_N}")


@dataclass(frozen=True)
class HostPeaks(_Blocks):
    """peaks[m, blocks]: the largest of each block of logits [m, n]."""

    op: ClassVar[str] = "host_peaks"
    n: int


@dataclass(frozen=True)
class HostArgMax(_Blocks):
    """out[m, 1]: the index of the largest of logits [m, n], whose blocks have `peaks`."""

    op: ClassVar[str] = "host_argmax"
    n: int
