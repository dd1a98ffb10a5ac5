"""Kernels over GGUF-quantised weights that run with tuned schedules, looked up when a kernel is built.

    import kernels

    w = kernels.PackedWeight.from_gguf("model.gguf", "blk.0.attn_q.weight")
    y = kernels.linear(x, w)  # x [..., k], y [..., n]
    model = kernels.llm.load("model.gguf")

    PackedWeight    a weight [n, k] that stays packed on the device: from_gguf, from_blocks
    linear          x times a transposed weight
    fused           linears fused with norms, gates, biases and residuals; mixtures of experts
    attention       rotation and storage in caches; attention of one token and of a prompt
    router          selects the experts of each token
    small           norms, embedding lookup, argmax
    llm             whole models: llm.load
    resolve         the schedule for a workload on a target, and the lookup step that found it
    build           the kernel of a workload under a schedule, as tinygrad's UOp

These names load on first use, so importing this package costs little more than importing tinygrad. The library looks
schedules up and never searches for them; `autotune sweep model.gguf` does.
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

# No module of this package may have one of these names, because importing it would hide the public name.
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
