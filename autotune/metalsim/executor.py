"""Runs a kernel of Metal source on the host. Each launch is a process of its own and returns one verdict.

Each thread of a threadgroup is a fiber that runs until it waits for others. The caller chooses the order of threads.
The C++ part is in runtime/, and README.md explains what is modelled.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autotune.metalsim.limits import refused
from autotune.metalsim.memory import SharedMemory
from autotune.metalsim.toolchain import compile_metal, library_file
from autotune.metalsim.translate import translate
from autotune.metalsim.verdict import MetalFault, Verdict

ORDERS = ("forward", "reverse", "shuffled")
Size = tuple[int, ...]
Content = bytes | bytearray | memoryview
"""The bytes of a buffer, in the machine's order."""


# The next three are the structs of runtime/state.h, whose fields must be equal in number, order and type.
class _Argument(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("nbytes", ctypes.c_uint64))


class _Launch(ctypes.Structure):
    _fields_ = (
        ("arguments", ctypes.POINTER(_Argument)),
        ("enter", ctypes.c_void_p),
        ("seed", ctypes.c_uint64),
        ("seconds", ctypes.c_double),
        ("count", ctypes.c_uint32),
        ("order", ctypes.c_uint32),
        ("strict", ctypes.c_uint32),
        ("groups", ctypes.c_uint32 * 3),
        ("threads", ctypes.c_uint32 * 3),
    )


class _Report(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_char * 32),
        ("message", ctypes.c_char * 256),
        ("suspicion", ctypes.c_char * 256),
        ("line", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("suspicion_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class Order:
    """The order of the threads in a threadgroup and of the threadgroups: one of ORDERS. seed: for "shuffled"."""

    name: str = "forward"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in ORDERS:
            raise ValueError(f"order {self.name!r}: expected one of {', '.join(ORDERS)}")


FORWARD = Order()
THREE_ORDERS = (FORWARD, Order("reverse"), Order("shuffled", 1))


@dataclass(frozen=True)
class SimulatedLaunch:
    """How to launch a kernel.

    groups    threadgroups in the grid, (x[, y[, z]])
    threads   threads in a threadgroup, (x[, y[, z]])
    strict    a racing load, or a load of memory that no thread has written, ends the run even without an effect
    seconds   the limit of processor time
    """

    groups: Size = (1,)
    threads: Size = (1,)
    order: Order = FORWARD
    strict: bool = False
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for size in (self.groups, self.threads):
            if not 1 <= len(size) <= 3 or any(not 0 <= n < 1 << 32 for n in size):
                raise ValueError(f"a size of {size}: expected 1 to 3 numbers below 2**32")


class Kernel:
    """One kernel of a library that `compile_metal` made. Raises ValueError if the library has none of that name."""

    def __init__(self, library: bytes, name: str) -> None:
        self.name, self._code, self._library = name, library, _loaded(library)
        try:
            self._enter = ctypes.cast(getattr(self._library, f"metalsim_enter_{name}"), ctypes.c_void_p).value
        except AttributeError:
            raise ValueError(f"the library has no kernel {name!r}") from None
        self._arguments = ctypes.c_uint32.in_dll(self._library, f"metalsim_arguments_{name}").value
        self._max_threads = ctypes.c_uint32.in_dll(self._library, "metalsim_max_threads").value

    def run(self, buffers: Sequence[SharedMemory], values: Sequence[int], launch: SimulatedLaunch) -> Verdict:
        """Runs one launch and returns its verdict. The results are in `buffers`; they are incomplete unless the verdict
        is ok.

        buffers, values: the kernel's arguments [[buffer(0)]], [[buffer(1)]] and so on, first all buffers, then all
        values. A value is a whole number that fits in 8 bytes.
        """
        groups, threads = _three(launch.groups), _three(launch.threads)
        count = len(buffers) + len(values)
        if refusal := refused(threads, groups, count, self._max_threads):
            return refusal
        if count != self._arguments:
            raise ValueError(f"{self.name} takes {self._arguments} buffers and constants, {count} are given")
        constants = [SharedMemory.of(value.to_bytes(8, "little", signed=value < 0)) for value in values]
        table = (_Argument * max(count, 1))(*(_Argument(m.address, m.nbytes) for m in (*buffers, *constants)))
        order, seed = ORDERS.index(launch.order.name), launch.order.seed
        asked = _Launch(table, self._enter, seed, launch.seconds, count, order, launch.strict, groups, threads)
        report = _Report()
        if self._library.metalsim_run(ctypes.byref(asked), ctypes.byref(report)):
            raise OSError("no process could be started for a simulated launch")
        kind, message, suspicion = (getattr(report, name).decode() for name in ("kind", "message", "suspicion"))
        if suspicion:
            suspicion += f" ({_place(self._code, 0, report.suspicion_offset)})"
        return Verdict(kind, message, "" if kind == "ok" else _place(self._code, report.line, report.offset), suspicion)


def _three(size: Size) -> tuple[int, int, int]:
    """(x, y, z), where those that are not given are 1."""
    x, y, z = (*size, 1, 1)[:3]
    return x, y, z


@functools.lru_cache(maxsize=256)
def _loaded(library: bytes) -> ctypes.CDLL:
    with library_file(library) as path:
        return ctypes.CDLL(str(path))


def _place(library: bytes, line: int, offset: int) -> str:
    """A place in the Metal source, such as "line 12", or "" if it cannot be found.

    line: its number, or 0. offset: where the instruction is in the library, for which addr2line finds the line.
    """
    if line:
        return f"line {line}"
    if not offset or (tool := shutil.which("addr2line") or shutil.which("llvm-addr2line")) is None:
        return ""
    # `offset` is a return address, one instruction after the call that is looked for
    with library_file(library) as path:
        found = subprocess.run([tool, "-e", str(path), hex(offset - 1)], capture_output=True, text=True, check=False)
    name, _, number = found.stdout.strip().split(" ")[0].rpartition(":")
    return f"line {number}" if name.endswith("kernel.metal") and number.isdigit() else ""


@dataclass(frozen=True)
class Result:
    """A verdict, and the contents of the buffers after the launch."""

    verdict: Verdict
    buffers: tuple[bytes, ...] = ()


def run_source(
    source: str,
    buffers: Sequence[Content],
    values: Sequence[int],
    launch: SimulatedLaunch,
    *,
    name: str | None = None,
    compiler: str | None = None,
) -> Result:
    """Compiles `source` and runs its kernel `name`, by default its only kernel, on copies of `buffers`. See
    Kernel.run."""
    try:
        kernel = Kernel(compile_metal(source, compiler), name or _only_kernel(source))
    except MetalFault as e:
        return Result(e.verdict)
    memory = [SharedMemory.of(b) for b in buffers]
    verdict = kernel.run(memory, values, launch)
    return Result(verdict, tuple(bytes(m.view) for m in memory))


def run_orders(
    source: str,
    buffers: Sequence[Content],
    values: Sequence[int],
    launch: SimulatedLaunch,
    *,
    name: str | None = None,
    compiler: str | None = None,
    orders: Sequence[Order] = THREE_ORDERS,
) -> Result:
    """The same as run_source, once in each of `orders`. Returns the first result whose verdict is not ok. If all are
    ok, but a bit of a buffer differs between two orders, the verdict is order_dependent."""
    results = []
    for order in orders:
        result = run_source(source, buffers, values, replace(launch, order=order), name=name, compiler=compiler)
        if not result.verdict.ok:
            return result
        results.append(result)
    for order, result in zip(orders, results, strict=True):
        for i, (one, other) in enumerate(zip(results[0].buffers, result.buffers, strict=True)):
            if one != other:
                at = next(j for j, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
                message = f"buffer {i} differs from byte {at} on between {orders[0].name} and {order.name} order"
                suspicion = results[0].verdict.suspicion or result.verdict.suspicion
                return Result(Verdict("order_dependent", message, suspicion=suspicion), result.buffers)
    return next((r for r in results if r.verdict.suspicion), results[0])


def _only_kernel(source: str) -> str:
    names = list(translate(source).kernels)
    if len(names) != 1:
        raise ValueError(f"the source has the kernels {', '.join(names)}; name one")
    return names[0]
