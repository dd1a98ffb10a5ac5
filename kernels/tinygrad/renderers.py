"""tinygrad's renderers: what they write for."""

from __future__ import annotations

from tinygrad import Device
from tinygrad.renderer import Renderer
from tinygrad.renderer.cstyle import CStyleLanguage

from kernels.tinygrad import compiler_cache

__all__ = ["Renderer", "device_renderer", "writes_c"]


def device_renderer(device: str) -> Renderer:
    """The renderer of a device, which this opens."""
    compiler_cache.patch_tinygrad()
    return Device[device].renderer


def writes_c(ren: Renderer) -> bool:
    """Whether a renderer writes a dialect of C; others write PTX, LLVM's or machine code."""
    return isinstance(ren, CStyleLanguage)
