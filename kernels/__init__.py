"""Kernels over GGUF-quantised weights that run with tuned schedules, looked up when a kernel is built.

    import kernels

    w = kernels.PackedWeight.from_gguf("model.gguf", "blk.0.attn_q.weight")
    y = kernels.linear(x, w)  # x [..., k], y [..., n]
    model = kernels.llm.load("model.gguf")

    PackedWeight    a weight [n, k] that stays packed on the device: from_gguf, from_blocks
    linear          x times a weight, transposed
    fused           linears with norms, gates, biases and residuals; the experts of a mixture
    attention       rotation and store into the caches; attention of one token and of a prompt
    router          the experts that a token is routed to
    small           norms, the lookup of embeddings, the likeliest token
    llm             whole models: llm.load
    resolve         the schedule for a workload on a target, and the lookup step that gave it
    build           the kernel of a workload under a schedule, as tinygrad's UOp

These names load on first use: importing this package costs little more than importing tinygrad. Nothing is searched
here; `autotune sweep model.gguf` finds the schedules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kernels import clash

if TYPE_CHECKING:
    from kernels import llm
    from kernels.api import attention, fused, router, small
    from kernels.api.packed import PackedWeight, linear
    from kernels.serve.server import resolve
    from kernels.serve.sink import build

# no module of this package may be called like one of these: importing it would hide the name
_HOMES = {
    "PackedWeight": "kernels.api.packed:PackedWeight",
    "attention": "kernels.api.attention",
    "build": "kernels.serve.sink:build",
    "fused": "kernels.api.fused",
    "linear": "kernels.api.packed:linear",
    "llm": "kernels.llm",
    "resolve": "kernels.serve.server:resolve",
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
    return sorted(__all__)


clash.warn_once()
