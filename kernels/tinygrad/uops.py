"""The names of tinygrad's UOp language that kernels are written in, below those that `tinygrad` itself exports."""

from __future__ import annotations

from tinygrad.dtype import AddrSpace, DType
from tinygrad.uop.ops import AxisType, KernelInfo, Ops

__all__ = ["AddrSpace", "AxisType", "DType", "KernelInfo", "Ops"]
