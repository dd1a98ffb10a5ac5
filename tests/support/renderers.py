"""Renderers of devices that need not be here: enough to schedule and to lower kernels, which opens nothing."""

from __future__ import annotations

from tinygrad.codegen.opt import tc
from tinygrad.helpers import Target
from tinygrad.renderer.cstyle import CStyleLanguage, MetalRenderer, OpenCLRenderer
from tinygrad.renderer.isa.x86 import X86Renderer


class MetalSource(MetalRenderer):  # type: ignore[misc]
    """Renders Metal and compiles nothing."""

    def __init__(self) -> None:
        CStyleLanguage.__init__(self, Target("METAL", arch="Apple9"))
        self.tensor_cores = tc.metal


CL = OpenCLRenderer(Target("CL"))
METAL = MetalSource()
THREADED = X86Renderer(Target("CPU", arch="x86_64"))
