"""Kernels over GGUF-quantised weights that run with tuned schedules, looked up when a kernel is built.

    w = kernels.PackedWeight.from_blocks(raw_uint8_rows, "Q4_K", shape=(n, k))
    y = kernels.linear(x, w)

Names load on first use: importing this package costs little more than importing tinygrad.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kernels import clash

if TYPE_CHECKING:
    from kernels.packed import PackedWeight, linear
    from kernels.resolution import resolve
    from kernels.sink import build

# no module of this package may be called like one of these: importing it would hide the function
_HOMES = {
    "PackedWeight": "kernels.packed",
    "linear": "kernels.packed",
    "build": "kernels.sink",
    "resolve": "kernels.resolution",
}
__all__ = ["PackedWeight", "build", "linear", "resolve"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kernels' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_HOMES[name]), name)
    return value


clash.warn_once()
