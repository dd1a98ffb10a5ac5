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
    from kernels import llm
    from kernels.api import attention, fused, router, small
    from kernels.api.packed import PackedWeight, linear
    from kernels.serve.resolution import resolve
    from kernels.serve.sink import build

# no module of this package may be called like one of these: importing it would hide the name
_HOMES = {
    "PackedWeight": "kernels.api.packed:PackedWeight",
    "attention": "kernels.api.attention",
    "build": "kernels.serve.sink:build",
    "fused": "kernels.api.fused",
    "linear": "kernels.api.packed:linear",
    "llm": "kernels.llm",
    "resolve": "kernels.serve.resolution:resolve",
    "router": "kernels.api.router",
    "small": "kernels.api.small",
}
__all__ = ["PackedWeight", "attention", "build", "fused", "linear", "llm", "resolve", "router", "small"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kernels' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    found = importlib.import_module(module)
    globals()[name] = value = getattr(found, attribute) if attribute else found
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


clash.warn_once()
