"""tinygrad's Metal renderer without macOS. It renders the same source and compiles it for the host. It opens no device
and can be pickled."""

from __future__ import annotations

from tinygrad.codegen.opt import tc
from tinygrad.device import CompileError, Compiler
from tinygrad.helpers import Target
from tinygrad.renderer.cstyle import CStyleLanguage, MetalRenderer

from autotune.metalsim.toolchain import compile_metal
from autotune.metalsim.verdict import MetalFault

ARCHS = ("Apple7", "Apple8", "Apple9")


class SimulatedCompiler(Compiler):  # type: ignore[misc]
    """Compiles Metal source to a library for the host. It has its own cache, because tinygrad's cache ignores changes
    of the shim."""

    def __init__(self, compiler: str | None = None) -> None:
        super().__init__(None)
        self._compiler = compiler

    def compile(self, src: str) -> bytes:
        """Raises CompileError, as tinygrad's callers expect, and ToolchainError."""
        try:
            return compile_metal(src, self._compiler)
        except MetalFault as e:
            raise CompileError(str(e)) from e


class SimulatedMetalRenderer(MetalRenderer):  # type: ignore[misc]
    """Renders the source of MetalRenderer for `target.arch`, one of ARCHS, with tensor cores. Raises ValueError for
    another arch. compiler: the clang++ to use, see toolchain.find_toolchain."""

    def __init__(self, target: Target, compiler: str | None = None) -> None:
        if target.arch not in ARCHS:
            raise ValueError(f"Metal is simulated as {', '.join(ARCHS)}, not as {target.arch!r}")
        CStyleLanguage.__init__(self, target)  # MetalRenderer's own would load macOS's compiler
        self._compiler_path = compiler
        self.compiler, self.tensor_cores = SimulatedCompiler(compiler), tc.metal

    def __reduce__(self) -> tuple[type[SimulatedMetalRenderer], tuple[Target, str | None]]:
        return type(self), (self.target, self._compiler_path)


def metal_renderer(arch: str = "Apple9", compiler: str | None = None) -> SimulatedMetalRenderer:
    """A renderer for `arch`. Raises ValueError unless it is one of ARCHS."""
    return SimulatedMetalRenderer(Target("METAL", arch=arch), compiler)
