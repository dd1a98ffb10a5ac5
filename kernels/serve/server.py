"""The one path from a workload to what is launched for it: schedule, kernel, compiled program.

Every launch asks a `Server`, which remembers all that it has answered. The process shares one; `use` and `serving` hand
in another.
"""

from __future__ import annotations

import atexit
import itertools
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tinygrad import Tensor, UOp

from db.guard import Guard
from db.lookup import Lookup
from db.records import Schedule, Target, Workload
from kernels import devices
from kernels.formats.unpack import tables
from kernels.ops import registry
from kernels.ops.tolerance import tolerance
from kernels.serve import sink
from kernels.serve.memo import Memo
from kernels.serve.modes import lookup_mode
from kernels.serve.resolution import Resolution, fallbacks, look_up
from kernels.tinygrad import compile as compiler
from kernels.tinygrad import programs
from kernels.tinygrad.garbage import rare_collections
from kernels.tinygrad.renderers import Renderer, device_renderer
from kernels.tinygrad.schedule import ScheduleError
from kernels.tinygrad.upload import upload


@dataclass(frozen=True)
class Kernel:
    """What serves a workload on a device.

    schedule: one that applies. step: of `resolution.STEPS`, the one that gave it. sink: over placeholders of the
    operands in slot order, with the opts in its KernelInfo.
    """

    schedule: Schedule
    step: str
    sink: UOp


@dataclass(frozen=True)
class Device:
    """An open device. target: what its schedules are stored for."""

    name: str
    renderer: Renderer
    target: Target


class Server:
    """Answers from one pair of stores, in one mode of AUTOTUNE_LOOKUP; each question is answered once and remembered.
    Only what was answered while a store was locked, or out of reach, is asked once more when that may be over.

    Threads may share it: an answer is made by one of them, and the others wait. A forked child goes on with the answers
    that there are, and never waits for a thread of its parent.
    """

    def __init__(self, lookup: Lookup | None = None, mode: str | None = None) -> None:
        """lookup: by default the user's store and the packaged one. mode: by default that of the environment."""
        self._lookup = Lookup(limit=tolerance) if lookup is None else lookup
        self._mode = lookup_mode() if mode is None else mode
        self._guard = guard = Guard()
        self._devices = Memo(guard, _open)
        self._renderers = Memo(guard, self._renderer)
        self._tables = Memo(guard, _upload_tables)
        self._resolutions = Memo(guard, self._resolve)
        self._kernels = Memo(guard, self._build)
        self._provisional: set[Workload] = set()  # answered without a store that could not be asked
        self._programs: dict[compiler.Key, UOp] = {}
        self._awaited: dict[compiler.Key, Target] = {}  # not on disk; tinygrad will compile them

    def resolve(self, workload: Workload, target: Target) -> Resolution:
        """The schedule for a workload on a target, which need not be of this machine, and the step that gave it.

        Raises KernelError or FormatError for a workload that these kernels do not have.
        """
        if self._provisional:
            self._ask_again()
        return self._resolutions[workload, target]

    def device(self, name: str) -> Device:
        """Opens a device ("CPU", "CUDA:1"). What is remembered can be asked for where tinygrad forbids opening devices,
        which is in the functions that it captures. Raises DeviceError for one that does not open."""
        return self._devices[name]

    def tables(self, format: str, device: str) -> tuple[Tensor, ...]:
        """A format's tables, on a device once."""
        return self._tables[format, device]

    def serve(self, workload: Workload, device: str) -> Kernel:
        """The kernel for a workload on a device. Where the schedule that `resolve` gives does not apply, warns once and
        serves the first of the defaults that does. Raises KernelError, FormatError or DeviceError."""
        if self._provisional:
            self._ask_again()
        return self._kernels[workload, device]

    def program(self, workload: Workload, device: str) -> UOp:
        """What a launch calls: a compiled program if this process or an earlier one has made it, else the kernel's
        SINK, which tinygrad compiles when what it writes is realized. Raises as `serve` does."""
        kernel = self.serve(workload, device).sink
        if not _settled(kernel):
            return kernel
        here = self.device(device)
        key = compiler.program_key(kernel, here.renderer)
        if key not in self._programs:
            self._find(key, kernel, here)
        return self._programs.get(key, kernel)

    def compile(self, workloads: Iterable[Workload], device: str) -> None:
        """Compiles what launches of these workloads call, several at a time, but for what any process has compiled."""
        with self._guard.lock, rare_collections():
            asked = [w for w in dict.fromkeys(workloads) if _settled(self.serve(w, device).sink)]
            missing = [k for w in asked if (k := self.serve(w, device).sink) is self.program(w, device)]
            if missing:
                compiler.compile_kernels(list(dict.fromkeys(missing)), device)
                self.keep()

    def keep(self) -> None:
        """Keeps on disk what tinygrad has compiled since it was asked for here. At the end of a process this is done
        for the shared server."""
        with self._guard.lock:
            for key in list(self._awaited):
                self._take(key)

    def _find(self, key: compiler.Key, kernel: UOp, here: Device) -> None:
        """Remembers a program that there is by now: compiled by this process, or kept by an earlier one."""
        with self._guard.lock:
            if key not in self._awaited and key not in self._programs:
                there = compiler.in_memory(key) is not None
                kept = None if there else programs.load(key, kernel, here.target, here.renderer)
                if kept is None:
                    self._awaited[key] = here.target
                else:
                    self._programs[key] = kept
            self._take(key)

    def _take(self, key: compiler.Key) -> None:
        """Remembers and keeps a program that was awaited, if tinygrad has compiled it."""
        if key in self._awaited and (found := compiler.in_memory(key)) is not None:
            self._programs[key] = compiler.launchable(found)
            programs.keep(key, self._awaited.pop(key), self._programs[key])

    def _resolve(self, w: Workload, target: Target) -> Resolution:
        def applies(w: Workload, schedule: Schedule) -> bool:
            device = target.backend.split(":")[0]  # the backend without the renderer
            opened = next((d.renderer for d in self._devices.values() if d.target == target), None)
            return sink.can_build(w, schedule, device, opened or self._renderers[device])

        found = look_up(w, target, self._lookup, self._mode, applies)
        if found.step != "user" and self._lookup.refused:
            self._provisional.add(w)
        return found

    def _ask_again(self) -> None:
        """Forgets what was answered without a store, if that may be asked by now."""
        with self._guard.lock:
            if self._lookup.refused:
                return
            for memo in (self._resolutions, self._kernels):
                for key in [key for key in memo if key[0] in self._provisional]:
                    del memo[key]
            self._provisional.clear()

    def _renderer(self, device: str) -> Renderer | None:
        """The renderer of a device, which this opens; None if this machine has no such device."""
        try:
            return self.device(device).renderer
        except devices.DeviceError:
            return None

    def _build(self, w: Workload, device: str) -> Kernel:
        here = self.device(device)
        problem: ValueError | None = None
        for found in self._candidates(w, here.target):
            try:
                kernel = Kernel(found.schedule, found.step, sink.build(w, found.schedule, here.renderer))
            except (ScheduleError, registry.KernelError) as e:
                problem = problem or e
                continue
            if problem is not None:
                warnings.warn(f"the tuned schedule of {w} no longer applies and is not used: {problem}", stacklevel=2)
            return kernel
        remedy = "`autotune sweep` searches for another"
        why = f"or cannot be built ({problem})" if problem else "all of them"
        raise registry.KernelError(f"the schedules of {w} were found wrong on {here.name}, {why}; {remedy}")

    def _candidates(self, w: Workload, target: Target) -> Iterator[Resolution]:
        """What `resolve` gives, then what may stand in for it. The untuned schedule is the last resort of `resolve`,
        which may have been found wrong."""
        found, others = self.resolve(w, target), fallbacks(w, target, self._lookup, self._mode)
        if found.step == "untuned":
            return (other for other in others if other.step == "untuned")
        return itertools.chain([found], others)


def _open(name: str) -> Device:
    target = devices.describe_target(devices.named(name))
    return Device(name, device_renderer(name), target)


def _upload_tables(format: str, device: str) -> tuple[Tensor, ...]:
    return tuple(upload(array, device) for array in tables.arrays(format))


def _settled(kernel: UOp) -> bool:
    """Whether nothing can change what is compiled: without opts, tinygrad's BEAM search may."""
    return kernel.arg.opts_to_apply is not None


_guard = Guard()
_shared: Server | None = None


def shared() -> Server:
    """The server of this process."""
    global _shared
    found = _shared
    if found is None:
        with _guard.lock:
            _shared = found = _shared or Server()
    return found


def use(server: Server | None) -> Server | None:
    """Makes `server` that of this process, or a new one at the next question if it is None; returns the one before."""
    global _shared
    with _guard.lock:
        before, _shared = _shared, server
    if before is not None:
        before.keep()
    return before


@contextmanager
def serving(server: Server | None) -> Iterator[None]:
    """`use`, for a while."""
    before = use(server)
    try:
        yield
    finally:
        use(before)


def resolve(workload: Workload, target: Target) -> Resolution:
    """The schedule for a workload on a target, and the step that gave it. Memoised for the life of the process."""
    return shared().resolve(workload, target)


@atexit.register
def _keep() -> None:
    if _shared is not None:
        _shared.keep()
