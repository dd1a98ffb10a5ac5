"""What each backend can do: one row a backend. Elsewhere no device name is compared or listed.

A backend is a tinygrad device ("CUDA"), or a device with a renderer whose kernels differ ("CUDA:PTX"). A new one is one
more row of `BACKENDS`; a device that has no row gets `UNKNOWN`, with which kernels are plain loops.

A row chooses between what kernels can do and computes nothing, so that it is no part of a kernel's digest
(`kernels.ops.digest`): a new row leaves what is stored for other backends valid. Imports no tinygrad.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from kernels import cards, drivers, gpu_load
from kernels.tinygrad import facts, slices

MOST_SLICES = slices.MOST  # of a launch on a host
HOST_CLOCK = "perf_counter around the call"
EXECUTOR_CLOCK = "CLOCK_MONOTONIC around the executor's launches"
C_COMPILER, NVRTC = "cc", "nvrtc"


@dataclass(frozen=True)
class TensorCore:
    """What multiplies small matrices. depth: columns of k that an instruction takes. float32: factors are float32;
    else they have 16 bits, and a float32 goes there in parts."""

    depth: int
    float32: bool


@dataclass(frozen=True)
class Needs:
    """What a kernel needs of its backend. threads and local_nbytes are those of a workgroup, 0 for none; warp is the
    number of lanes that meet in shuffles, 0 for none; prelude: functions of `kernels.tinygrad.prelude`."""

    threads: int = 0
    local_nbytes: int = 0
    warp: int = 0
    tensor_core: bool = False
    prelude: bool = False


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Backend:
    """One row.

    What its kernels may use:
    threads             the most threads of a workgroup, which run side by side; 0 where there are no workgroups
    local_memory_nbytes of a workgroup; 0 for none
    slices              of a loop that threads share out among themselves, at most; 0 where there are none
    warp, shuffle       lanes that exchange values, and the code that gives a lane the value `{{0}}` of the lane whose
                        number differs in `{bit}`; 0 and "" where none is known
    tensor_core         None for none that kernels are written for
    has_half            False where a driver may lack float16, which tinygrad 0.14 then emulates, denormals taken for 0
    vector_half         False where compilers convert float16 one by one, while float32 arithmetic takes denormals as
                        they are: halves are then converted by arithmetic, in vectors
    denormals           float32 arithmetic takes denormals as they are, at full speed
    prelude             kernels may call the vector functions of `kernels.tinygrad.prelude`
    fitted              default schedules follow what was measured on its GPUs, shape by shape
    kin                 another backend with the same GPUs and kernels, whose rows and rules serve where it has none
    prepare             what to do before a kernel is built for it

    What its device is:
    facts               reads what an open device tells about itself
    card                names the card that it computes on, before it is opened
    busy                tells how busy it is with the work of others
    visible, seen       the variable of the environment that says which devices a process sees, "" for none, and the
                        values of it that stand for one device each
    clock               where the seconds of a launch come from
    automatic           chosen without being asked for, if it works; the order of rows is the order of preference
    missing             why it cannot be on this machine, judged without opening it
    interface           the tinygrad interface that a probe opens ("KFD"), "" for tinygrad's choice
    on_cpu              Python code of a probe that sets `cpu`, from `device`, where the device may be a CPU
    host                kernels run on this machine's own processor
    compiler            C_COMPILER or NVRTC: what tinygrad compiles with, where that may be missing
    machine             the only processor that it is for, "" for any
    hardware            False where it stands in for a device
    computes            False where kernels are compiled and not run
    """

    name: str
    threads: int = 0
    local_memory_nbytes: int = 0
    slices: int = 0
    warp: int = 0
    shuffle: str = ""
    tensor_core: TensorCore | None = None
    has_half: bool = True
    vector_half: bool = True
    denormals: bool = False
    prelude: bool = False
    fitted: bool = False
    kin: str = ""
    prepare: Callable[[], None] = _nothing
    facts: facts.Reader = facts.arch_only
    card: cards.Card = cards.unknown
    busy: gpu_load.Busy = gpu_load.unknown
    visible: str = ""
    seen: Callable[[], tuple[str, ...]] = gpu_load.one
    clock: str = HOST_CLOCK
    automatic: bool = False
    missing: drivers.Missing = drivers.nothing
    interface: str = ""
    on_cpu: str = ""
    host: bool = False
    compiler: str = ""
    machine: str = ""
    hardware: bool = True
    computes: bool = True

    @property
    def device(self) -> str:
        """tinygrad's device, without the renderer."""
        return self.name.partition(":")[0]

    def has(self, needs: Needs) -> bool:
        """Whether a kernel that needs this can run."""
        return (
            needs.threads <= self.threads
            and needs.local_nbytes <= self.local_memory_nbytes
            and needs.warp in (0, self.warp)
            and not (needs.tensor_core and self.tensor_core is None)
            and not (needs.prelude and not self.prelude)
        )

    def shuffled(self, bit: int) -> str:
        """Code for the value of the lane whose number differs in `bit` (a power of two), as tinygrad's Ops.CUSTOM takes
        it."""
        return self.shuffle.format(bit=bit)


KiB = 1 << 10
_THREADS = 1024


def _x86_loops() -> None:
    from kernels.tinygrad import x86_loops

    x86_loops.patch_tinygrad()


def _vector_clang() -> None:
    from kernels.tinygrad import vector_clang

    vector_clang.patch_tinygrad()


def _renderer(row: Backend, name: str) -> Backend:
    """`row` with another renderer: without what is a matter of the language that kernels are rendered in."""
    return replace(
        row,
        name=f"{row.name}:{name}",
        local_memory_nbytes=0,
        warp=0,
        shuffle="",
        tensor_core=None,
        prelude=False,
        prepare=_nothing,
        fitted=False,
        kin="",
        compiler="",
    )


_METAL = Backend(
    "METAL",
    threads=_THREADS,
    local_memory_nbytes=32 * KiB,
    warp=32,
    shuffle="simd_shuffle_xor({{0}}, {bit})",
    tensor_core=TensorCore(depth=8, float32=True),
    facts=facts.metal,
    clock="Metal GPUStartTime/GPUEndTime",
    automatic=True,
    missing=drivers.macos,
)
_AMD = Backend(
    "AMD",
    threads=_THREADS,
    local_memory_nbytes=64 * KiB,
    facts=facts.amd,
    busy=gpu_load.amd,
    clock="GPU timestamps",
    automatic=True,
    missing=drivers.files("/dev/kfd"),
    interface="KFD",
)
_CUDA = Backend(
    "CUDA",
    threads=_THREADS,
    local_memory_nbytes=48 * KiB,  # without asking the driver for more
    warp=32,
    shuffle="__shfl_xor_sync(0xffffffffu, {{0}}, {bit})",
    tensor_core=TensorCore(depth=16, float32=False),
    denormals=True,
    fitted=True,
    facts=facts.cuda,
    card=cards.cuda,
    busy=gpu_load.nvidia,
    visible="CUDA_VISIBLE_DEVICES",
    seen=gpu_load.nvidia_seen,
    clock="CUDA events",
    automatic=True,
    missing=drivers.files("/dev/nvidiactl", "/dev/dxg"),
    compiler=NVRTC,
)
_NV = replace(
    _CUDA,
    name="NV",
    kin=_CUDA.name,
    facts=facts.nv,
    card=cards.nv,
    visible="",
    seen=gpu_load.one,
    clock="GPU timestamps",
    missing=drivers.files("/dev/nvidiactl"),
    interface="NVK",
    compiler="",
)
_QCOM = Backend(
    "QCOM",
    threads=_THREADS,
    local_memory_nbytes=32 * KiB,
    clock="GPU timestamps",
    automatic=True,
    missing=drivers.files("/dev/kgsl-3d0"),
)
_CL = Backend(
    "CL",
    threads=_THREADS,
    local_memory_nbytes=32 * KiB,
    has_half=False,
    facts=facts.cl,
    clock="OpenCL profiling events",
    automatic=True,
    missing=drivers.opencl,
    on_cpu=facts.OPENCL_ON_CPU,
)
_CPU = Backend(
    "CPU",
    slices=MOST_SLICES,
    vector_half=False,
    prelude=True,
    prepare=_vector_clang,
    facts=facts.cpu,
    host=True,
    compiler=C_COMPILER,
)
_WEBGPU = Backend("WEBGPU", threads=_THREADS, local_memory_nbytes=32 * KiB, has_half=False)
_DSP = Backend("DSP", missing=drivers.files("/dev/adsprpc-smd"))
# To a plan a GPU, which computes nothing and shares nothing.
_NULL = Backend("NULL", threads=_THREADS, hardware=False, computes=False)
_PYTHON = Backend("PYTHON", threads=_THREADS, hardware=False)

BACKENDS: dict[str, Backend] = {
    row.name: row
    for row in (
        _METAL,
        replace(_renderer(_METAL, "PYTHON"), tensor_core=_METAL.tensor_core),  # emulated by tinygrad
        _AMD,
        replace(_renderer(_AMD, "LLVM"), local_memory_nbytes=64 * KiB),
        _NV,
        replace(_renderer(_NV, "PTX"), local_memory_nbytes=48 * KiB),
        _CUDA,
        replace(_renderer(_CUDA, "PTX"), local_memory_nbytes=48 * KiB),
        replace(_renderer(_CUDA, "PYTHON"), tensor_core=_CUDA.tensor_core),
        _QCOM,
        _CL,
        _CPU,
        replace(_CPU, name="CPU:CLANG"),
        _renderer(_CPU, "LLVM"),
        replace(_renderer(_CPU, "LVP"), slices=0),
        replace(_renderer(_CPU, "X86"), prepare=_x86_loops, machine="x86_64"),
        _WEBGPU,
        _DSP,
        _NULL,
        _PYTHON,
    )
}
UNKNOWN = Backend("", has_half=False)
"""What every device can do."""

# chosen where no GPU works: kernels are compiled by a C compiler, or without one by tinygrad's assembler
HOST, ASSEMBLED = _CPU.name, f"{_CPU.name}:X86"
SIMULATED = _METAL.name  # what autotune.metalsim simulates


def find(device: str) -> Backend:
    """The row of a device: as tinygrad ("CUDA:1"), DEV ("KFD+AMD:LLVM", "CPU:X86:x86_64") or a Target spells it.

    A renderer without a row has what its device has but for what is a matter of its language: shuffles, tensor cores
    and local memory. A device without a row is `UNKNOWN`.
    """
    name, renderer = _spelled(device)
    row = BACKENDS.get(name, UNKNOWN)
    if not renderer:
        return row
    return BACKENDS.get(f"{name}:{renderer}") or _without_a_row(row, renderer)


def known(device: str) -> bool:
    """Whether there is a row of a device, whatever its renderer."""
    return _spelled(device)[0] in BACKENDS


def devices() -> tuple[Backend, ...]:
    """The rows of devices with the renderer that tinygrad gives them, in the order of preference."""
    return tuple(row for row in BACKENDS.values() if row.name == row.device)


def renderers(device: str) -> tuple[str, ...]:
    """The renderers of a device that have rows of their own."""
    prefix = f"{_spelled(device)[0]}:"
    return tuple(name.removeprefix(prefix) for name in BACKENDS if name.startswith(prefix))


@functools.lru_cache
def _spelled(device: str) -> tuple[str, str]:
    """(device, renderer or "") of [interface+]DEVICE[:number or :RENDERER[:ARCH]], of several the first."""
    name, _, rest = device.split(";")[0].rpartition("+")[2].strip().upper().partition(":")
    renderer = rest.partition(":")[0]
    return name, "" if renderer.isdigit() else renderer


@functools.lru_cache
def _without_a_row(row: Backend, renderer: str) -> Backend:
    return _renderer(row, renderer)
