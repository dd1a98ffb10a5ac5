"""Empty tensors and weights of the shapes and dtypes that a workload's operands have."""

from __future__ import annotations

from typing import Any

from tinygrad import Tensor

from db.records import Workload
from kernels import PackedWeight
from kernels.ops.op import DTYPES
from kernels.ops.registry import OPS, operands
from kernels.serve.server import shared


class Given:
    """Arguments for a call of a workload."""

    def __init__(self, w: Workload, device: str) -> None:
        self.w, self.device = w, device
        self.spec: Any = OPS[w.op].spec.from_workload(w)
        self.shapes = {o.name: o.shape for o in operands(w)}
        self.dtypes = {o.name: o.dtype for o in operands(w)}

    def __getitem__(self, name: str) -> Tensor:
        """An operand by its name."""
        return Tensor.empty(*self.shapes[name], dtype=self.dtypes[name], device=self.device)

    def rows(self, name: str) -> Tensor:
        """An operand whose rows are those of tokens, as the launch before left it: [m, columns]."""
        return self[name].reshape(self.w.m, -1)

    def some(self, **names: str) -> dict[str, Tensor]:
        """Keywords for those operands that the workload has."""
        return {keyword: self[name] for keyword, name in names.items() if name in self.shapes}

    def weight(self, format: str, n: int, k: int) -> PackedWeight:
        planes = [o for o in operands(Workload("linear", format, n, k)) if o.name.startswith("w.")]
        empty = (Tensor.empty(*o.shape, dtype=o.dtype, device=self.device) for o in planes)
        return PackedWeight(format, (n, k), tuple(empty), self.device, shared().device(self.device).target)

    @property
    def own(self) -> PackedWeight:
        """The weight of a workload that has one."""
        return self.weight(self.w.format, self.w.n, self.w.k)

    def stacked(self, w: Workload, format: str = "") -> PackedWeight:
        return self.weight(format or w.format, self.spec.experts * w.n, w.k)

    def tensor(self, *shape: int, dtype: str = "") -> Tensor:
        return Tensor.empty(*shape, dtype=DTYPES[dtype or self.w.x_dtype], device=self.device)

    @property
    def ids(self) -> Tensor:
        """Chosen experts. Where there is one only, its kernels do not read them."""
        return self.tensor(self.w.m, self.spec.used, dtype="int32")

    @property
    def eps(self) -> float:
        return float(getattr(self.spec, "eps", None) or 1e-5)
