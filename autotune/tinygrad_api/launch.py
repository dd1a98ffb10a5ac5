"""An open device: upload arrays, load Programs, launch them and read the device's clock. One process, one OpenDevice.

On a host with an executor (`kernels.host`), that makes the launches, with its threads, as it does in a model. Does not
lower, choose, judge or repeat: that is `lower`, `search`, `validate` and `runner_child`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tinygrad.device import Buffer, CompileError, Device, LRUAllocator
from tinygrad.dtype import dtypes
from tinygrad.renderer import Renderer
from tinygrad.uop.ops import Ops, UOp

from autotune.tinygrad_api.lower import Program, one_line
from db.errors import AutotuneError
from kernels import backends
from kernels.host.executor import Launch, Table
from kernels.tinygrad import compiler_cache, facts
from kernels.tinygrad.host_launch import NotHostError, program_launch

__all__ = ["Buffer", "Chain", "Kernel", "LaunchError", "LoadError", "OpenDevice"]

# how tinygrad's runtimes report what a driver refused
_REFUSALS = (RuntimeError, AssertionError, MemoryError)


class LoadError(AutotuneError, RuntimeError):
    """The driver does not accept the program: too much local memory, source that it cannot compile, ..."""


class LaunchError(AutotuneError, RuntimeError):
    """A launch failed on the device. The device may be unusable from here on; leave the process."""


class Chain(Protocol):
    """Launches that follow each other without Python. Call it: seconds for all of them. Raises LaunchError."""

    def __call__(self) -> float: ...


class Kernel(Protocol):
    """A loaded program. Call it with the buffers of its slots in order: seconds on the device's clock.

    Raises LaunchError. A kernel that never ends blocks the call: only another process can end it.
    """

    def __call__(self, buffers: Sequence[Buffer]) -> float: ...

    def chain(self, launches: Sequence[Sequence[Buffer]]) -> Chain | None:
        """Launches with the buffers of each, strictly in turn where they write the same output; None where the device
        has no graphs."""


class _Launched:
    """A Kernel that tinygrad launches."""

    def __init__(self, program: Program, runtime: Any, device: Any, values: Mapping[str, int]) -> None:
        self._program, self._runtime, self._device, self._values = program, runtime, device, dict(values)
        self._slots = tuple(program.uop.arg.globals)
        self._vals = program.uop.arg.vals(self._values)
        self._dims = dict(zip(("global_size", "local_size"), program.launch_dims(values), strict=True))

    def __call__(self, buffers: Sequence[Buffer]) -> float:
        handles = [buffers[i].get_buf(self._device.device) for i in self._slots]
        try:
            return float(self._runtime(*handles, **self._dims, vals=self._vals, wait=True))
        except _REFUSALS as e:
            raise LaunchError(f"launch failed: {one_line(e)}") from e

    def chain(self, launches: Sequence[Sequence[Buffer]]) -> Chain | None:
        if self._device.graph is None:
            return None
        calls = [self._program.uop.call(*(UOp.from_buffer(buffers[i]) for i in self._slots)) for buffers in launches]
        body = UOp(Ops.CUSTOM_FUNCTION, src=(UOp(Ops.LINEAR, src=tuple(calls)),), arg="graph")
        try:
            graph = self._device.graph(body, input_uops=())
        except _REFUSALS as e:
            raise LaunchError(f"graph refused: {one_line(e)}") from e

        def run() -> float:
            try:
                return float(graph((), self._values, wait=True))
            except _REFUSALS as e:
                raise LaunchError(f"graph failed: {one_line(e)}") from e

        return run


class _Executed:
    """A Kernel that the executor launches: what is validated and timed is what runs, all of its slices and threads."""

    def __init__(self, program: Program, runtime: Any, device: Any, values: Mapping[str, int]) -> None:
        self._info, self._runtime, self._device, self._values = program.uop.arg, runtime, device, dict(values)

    def __call__(self, buffers: Sequence[Buffer]) -> float:
        return self.chain([buffers])()

    def chain(self, launches: Sequence[Sequence[Buffer]]) -> Chain:
        try:
            return Table([self._launch(buffers) for buffers in launches]).run
        except NotHostError as e:
            raise LaunchError(f"launch failed: {one_line(e)}") from e

    def _launch(self, buffers: Sequence[Buffer]) -> Launch:
        addresses = [buffers[i].get_buf(self._device.device).va_addr for i in self._info.globals]
        return program_launch(self._info, self._runtime, addresses, self._values)


class OpenDevice:
    """The device that DEV names, opened in this process. Raises LoadError for a simulated one: nothing can be measured
    on it."""

    executes: bool
    """Whether the executor makes the launches. Their chains cost the host little to make."""

    def __init__(self) -> None:
        compiler_cache.patch_tinygrad()
        self.name: str = Device.DEFAULT
        self._device: Any = Device[self.name]
        if getattr(self._device, "simulated", False):
            raise LoadError(f"{self.name} is simulated and has no clock: check schedules with autotune verify")
        self.executes = backends.find(self.name).host and facts.executes(self.renderer)

    @property
    def renderer(self) -> Renderer:
        return self._device.renderer

    @property
    def clock(self) -> str:
        """Where the seconds of a launch come from."""
        return backends.EXECUTOR_CLOCK if self.executes else backends.find(self.name).clock

    def upload(self, array: npt.NDArray[Any]) -> Buffer:
        """The array's bytes in device memory. MemoryError when there is no room."""
        buffer = Buffer(self.name, max(array.nbytes, 1), dtypes.uint8, preallocate=True)
        self.write(buffer, array)
        return buffer

    def write(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Overwrites the whole buffer; done when it returns."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._device.allocator._copyin(buffer.get_buf(self.name), flat.data)
        self._device.synchronize()

    def read(self, buffer: Buffer) -> npt.NDArray[np.uint8]:
        data = np.empty(buffer.nbytes, np.uint8)
        self._device.allocator._copyout(data.data, buffer.get_buf(self.name))
        return data

    def trim(self) -> None:
        """Gives freed buffers back: tinygrad keeps them by size, and the next workload has other sizes."""
        self._device.synchronize()
        if isinstance(self._device.allocator, LRUAllocator):
            self._device.allocator.free_cache()

    def load(self, program: Program, values: Mapping[str, int] = MappingProxyType({})) -> Kernel:
        """Hands the program to the driver, which for OpenCL also compiles it. `values` are those of its Variables.
        Raises LoadError."""
        loaded = _Executed if self.executes else _Launched
        try:
            return loaded(program, self._device.runtime(program.uop.to_elf()), self._device, values)
        except (CompileError, *_REFUSALS) as e:
            raise LoadError(one_line(e)) from e
