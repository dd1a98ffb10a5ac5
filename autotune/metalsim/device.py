"""DEV=METAL on Linux: a tinygrad device whose kernels run in `executor`. Its times are not measurements of Metal.

tinygrad imports a device from the module tinygrad.runtime.ops_<name>, so this module is installed under that name.
"""

from __future__ import annotations

import ctypes
import sys
import time
from dataclasses import dataclass
from typing import Any

from tinygrad.device import BufferSpec, Compiled, LRUAllocator, Program, TinyELF

from autotune.metalsim.executor import FORWARD, Kernel, Order, SimulatedLaunch
from autotune.metalsim.memory import SharedMemory
from autotune.metalsim.renderer import ARCHS, SimulatedMetalRenderer
from autotune.metalsim.toolchain import find_toolchain
from autotune.metalsim.verdict import MetalFault

MODULE = "tinygrad.runtime.ops_metal"


class InstallError(RuntimeError):
    """The simulated device cannot take METAL's place in this process."""


@dataclass(frozen=True)
class Simulation:
    """arch: one of ARCHS. order, strict and seconds: of each launch, see executor.SimulatedLaunch."""

    arch: str = "Apple9"
    order: Order = FORWARD
    strict: bool = False
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.arch not in ARCHS:
            raise ValueError(f"arch {self.arch!r}: expected one of {', '.join(ARCHS)}")


class _Installed:
    simulation = Simulation()


def install(simulation: Simulation | None = None) -> None:
    """Simulates METAL in this process from now on. Spawned processes must call this too. It must be called before METAL
    is opened, and may be called again only with the same simulation.

    Raises InstallError, and ToolchainError if no suitable clang++ is found.
    """
    simulation = simulation or Simulation()
    here = sys.modules[__name__]
    present = sys.modules.get(MODULE)
    if present is not None and present is not here:
        raise InstallError("tinygrad has opened this machine's own METAL; call install() before, or use that")
    if present is here and _Installed.simulation != simulation:
        raise InstallError(f"METAL is simulated as {_Installed.simulation} already, not as {simulation}")
    find_toolchain()
    _Installed.simulation = simulation
    sys.modules[MODULE] = here


def installed() -> bool:
    """Whether METAL is simulated in this process."""
    return sys.modules.get(MODULE) is sys.modules[__name__]


class SimulatedAllocator(LRUAllocator):  # type: ignore[misc]
    def _alloc(self, size: int, options: BufferSpec) -> SharedMemory:
        if options.external_ptr:
            raise MemoryError("the simulated METAL cannot use memory that it has not allocated")
        return SharedMemory(size)

    def _free(self, opaque: SharedMemory, options: BufferSpec) -> None:
        """Does nothing, because the memory is freed with its last reference."""

    def _as_buffer(self, src: SharedMemory) -> memoryview:
        return src.view

    def _copyin(self, dest: SharedMemory, src: memoryview) -> None:
        dest.view[: src.nbytes] = src.cast("B")

    def _copyout(self, dest: memoryview, src: SharedMemory) -> None:
        dest.cast("B")[:] = src.view[: dest.nbytes]

    def _transfer(self, dest: SharedMemory, src: SharedMemory, sz: int, src_dev: Any, dest_dev: Any) -> None:
        ctypes.memmove(dest.address, src.address, sz)

    def _offset(self, buf: SharedMemory, size: int, offset: int) -> SharedMemory:
        return buf.part(offset, size)


class SimulatedProgram(Program):  # type: ignore[misc]
    def __init__(self, dev: MetalDevice, obj: TinyELF) -> None:
        self.dev, self.name, self.signature = dev, obj.name, obj.signature
        self._kernel = Kernel(obj.lib, obj.name)

    def __call__(
        self,
        *bufs: SharedMemory,
        global_size: tuple[int, ...] = (1, 1, 1),
        local_size: tuple[int, ...] | None = (1, 1, 1),
        vals: tuple[int, ...] = (),
        wait: bool = False,
        **_: Any,
    ) -> float | None:
        """The seconds that the simulation took, if `wait` is set. Raises MetalFault, a RuntimeError."""
        started = time.perf_counter()
        simulation = self.dev.simulation
        groups, threads = tuple(global_size), tuple(local_size or (1,))
        launch = SimulatedLaunch(groups, threads, simulation.order, simulation.strict, simulation.seconds)
        verdict = self._kernel.run(bufs, vals, launch)
        if not verdict.ok:
            raise MetalFault(verdict)
        return time.perf_counter() - started if wait else None


class MetalDevice(Compiled):  # type: ignore[misc]
    """The simulated device. tinygrad finds it by this name. A real device has no attribute `simulated`."""

    simulated = True

    def __init__(self, device: str) -> None:
        self.simulation = _Installed.simulation
        renderers, arch = [SimulatedMetalRenderer], self.simulation.arch
        super().__init__(device, SimulatedAllocator(self), renderers, SimulatedProgram, None, arch=arch)
