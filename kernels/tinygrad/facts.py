"""What an open device tells about itself: a reader for each kind of device, which `kernels.backends` names by row.

A reader takes tinygrad's open device and its renderer. tinygrad is imported where a reader runs, not before.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from db.errors import SettingError
from kernels.tinygrad import hostcc

MiB = 2**20
MOST_CACHE_MIB = 65536
# No interface tells these two. Too large only makes a cold-cache measurement flush more than it must.
ASSUMED_GPU_CACHE_NBYTES = 128 * MiB  # more than any GeForce's L2 (RTX 5090: 96 MiB)
# System-level cache by Apple chip family: M1..M4 have 8, Pro 12..24, Max 48, Ultra 96 MiB (published die analyses).
_APPLE_CACHE_MIB = {"ultra": 96, "max": 48, "pro": 24}


@dataclass(frozen=True)
class Facts:
    """What a backend tells about a device. `nbytes` are 0 where it does not tell.

    driver         its version; on a CPU the compiler's, which plays that part there
    cache_nbytes   of the largest cache before memory; an assumption on METAL and NV, which do not tell
    memory_nbytes  of the memory that the device can use
    """

    arch: str
    name: str
    compute_units: int
    driver: str
    cache_nbytes: int
    memory_nbytes: int


Reader: TypeAlias = "Callable[[Any, Any], Facts]"

# whether the OpenCL device that a probe opened is a processor in disguise: bit 2 of CL_DEVICE_TYPE
OPENCL_ON_CPU = """
from tinygrad.runtime.autogen import opencl as cl
cl.clGetDeviceInfo(device.cl_dev, cl.CL_DEVICE_TYPE, 8, ctypes.byref(kind := ctypes.c_uint64()), None)
cpu = bool(kind.value & 2)
"""

# machine -> the instructions that multiply and sum int8, as Linux lists them and as macOS is asked for them
_INT8_DOT = {"x86_64": ("avx2", "hw.optional.avx2_0"), "arm64": ("asimddp", "hw.optional.arm.FEAT_DotProd")}


def executes(renderer: Any) -> bool:
    """Whether the executor (`kernels.host`) makes the launches of a host's device with this renderer."""
    from kernels.host import executor

    return bool(renderer.has_threads) and executor.available()


def cpu(opened: Any, renderer: Any) -> Facts:
    """Compute units are the threads that share a launch: those of the executor, or Python's one."""
    from kernels.host import threads

    compiler = hostcc.find() if type(renderer) is opened.renderers[0] else None
    return Facts(
        opened.arch.split(",")[0] + vectors(),
        _cpu_name(),
        threads.count() if executes(renderer) else 1,
        hostcc.compiler_version(compiler.path) if compiler else _tinygrad(opened, renderer),
        given_cache_nbytes() or _sysctl_int("hw.l3cachesize", "hw.l2cachesize") or cpu_cache_nbytes(),
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    )


def vectors(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What an x86-64's arch is called besides, by the widest vectors that compilers use natively: "-avx512", "-avx2" or
    "". Schedules for one are slow on the other. Of other processors, and where the system lists no instruction sets,
    "" too."""
    flags = _flags(cpuinfo).split()
    return next((f"-{name}" for name, flag in (("avx512", "avx512f"), ("avx2", "avx2")) if flag in flags), "")


def has_int8_dot(machine: str = "", cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has instructions that multiply int8 and sum the products."""
    flag, name = _INT8_DOT.get(machine or hostcc.machine(), ("", ""))
    return bool(flag) and (flag in _flags(cpuinfo).split() or _sysctl_int(name) == 1)


def _flags(cpuinfo: Path) -> str:
    """The processor's instruction sets, where the system lists them."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    return found[1] if found else ""


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    if brand := _output("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"):
        return brand
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What compilers call native: the processor's name and, where the system lists them, its instruction sets."""
    return f"{_cpu_name(cpuinfo)} {_flags(cpuinfo)}"


def given_cache_nbytes(environ: Mapping[str, str] = os.environ) -> int:
    """AUTOTUNE_CPU_CACHE, which is in MiB, for machines that are told a wrong size: a virtual one may be told that of
    its whole host. 0 if it is not set. Raises SettingError for anything but 1 to MOST_CACHE_MIB."""
    value = environ.get("AUTOTUNE_CPU_CACHE", "").strip()
    if value and not (value.isdecimal() and 0 < int(value) <= MOST_CACHE_MIB):
        raise SettingError(f"AUTOTUNE_CPU_CACHE={value!r}: expected 1 to {MOST_CACHE_MIB} (MiB)")
    return int(value or 0) * MiB


def cpu_cache_nbytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """The largest cache that sysfs lists for the first CPU ("32768K" is 32 MiB); 32 MiB if it lists none."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = [re.fullmatch(r"(\d+)([KMG]?)\s*", path.read_text()) for path in folder.glob("index*/size")]
    return max((int(s[1]) * units.get(s[2], 1) for s in sizes if s), default=0) or 32 * MiB


def metal(opened: Any, renderer: Any) -> Facts:
    if getattr(opened, "simulated", False):  # autotune.metalsim
        return Facts(opened.arch, f"simulated {opened.arch}", 0, "simulated", 8 * MiB, 1024 * MiB)
    from tinygrad.runtime.ops_metal import from_ns_str

    name = from_ns_str(opened.sysdevice.name())
    return Facts(
        opened.arch,
        name,
        gpu_core_count(_output("/usr/sbin/ioreg", "-rc", "AGXAccelerator", "-d1")),
        f"macOS {platform.mac_ver()[0]}",
        apple_cache_nbytes(name),
        int(opened.sysdevice.recommendedMaxWorkingSetSize()),
    )


def gpu_core_count(ioreg: str) -> int:
    """GPU cores in the output of `ioreg -rc AGXAccelerator`; 0 when it names none (virtual machines)."""
    found = re.search(r'"gpu-core-count"\s*=\s*(\d+)', ioreg)
    return int(found[1]) if found else 0


def apple_cache_nbytes(name: str) -> int:
    """The system-level cache of the chip called `name` ("Apple M3 Max"): an assumption, see _APPLE_CACHE_MIB."""
    words = name.lower().split()
    return next((mib for family, mib in _APPLE_CACHE_MIB.items() if family in words), 8) * MiB


def cuda(opened: Any, renderer: Any) -> Facts:
    from tinygrad.runtime.autogen import cuda
    from tinygrad.runtime.ops_cuda import check

    def attribute(which: int) -> int:
        check(cuda.cuDeviceGetAttribute(ctypes.byref(value := ctypes.c_int()), which, opened.cu_device))
        return value.value

    check(cuda.cuDeviceGetName(name := ctypes.create_string_buffer(256), 256, opened.cu_device))
    check(cuda.cuDriverGetVersion(ctypes.byref(version := ctypes.c_int())))
    check(cuda.cuDeviceTotalMem_v2(ctypes.byref(total := ctypes.c_size_t()), opened.cu_device))
    return Facts(
        opened.arch,
        name.value.decode(errors="replace"),
        attribute(cuda.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        f"CUDA {version.value // 1000}.{version.value % 1000 // 10}{_nvidia_driver()}",
        attribute(cuda.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
        total.value,
    )


def _nvidia_driver(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", file.read_text()) if file.exists() else None
    return f", driver {found[1]}" if found else ""


def nv(opened: Any, renderer: Any) -> Facts:
    models = [f.read_text() for f in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    found = re.search(r"Model:\s*(.+)", models[opened.device_id]) if opened.device_id < len(models) else None
    return Facts(
        opened.arch,
        found[1] if found else f"NVIDIA {opened.arch}",
        opened.num_gpcs * opened.num_tpc_per_gpc * opened.num_sm_per_tpc,
        f"NV{_nvidia_driver()}",
        ASSUMED_GPU_CACHE_NBYTES,
        0,
    )


def amd(opened: Any, renderer: Any) -> Facts:
    folder = Path(getattr(opened.iface, "dev_sysfs_path", ""))
    product, vram, driver = (
        file.read_text().strip() if file.is_file() else ""
        for file in (folder / "product_name", folder / "mem_info_vram_total", Path("/sys/module/amdgpu/version"))
    )
    return Facts(
        opened.arch,
        product or f"AMD {opened.arch}",
        opened.cu_cnt * opened.xccs,
        f"amdgpu {driver or platform.release()}",
        2 * ASSUMED_GPU_CACHE_NBYTES,  # an MI300X has 256 MiB of Infinity Cache
        int(vram) if vram.isdigit() else 0,
    )


def cl(opened: Any, renderer: Any) -> Facts:
    from tinygrad.runtime.autogen import opencl as cl
    from tinygrad.runtime.ops_cl import check

    def info(which: int, kind: Any) -> int:
        value = kind()
        check(cl.clGetDeviceInfo(opened.cl_dev, which, ctypes.sizeof(value), ctypes.byref(value), None))
        return int(value.value)

    return Facts(
        opened.device_name,  # tinygrad's arch is the list of extensions, which changes with the driver
        opened.device_name,
        info(cl.CL_DEVICE_MAX_COMPUTE_UNITS, ctypes.c_uint32),
        opened.driver_version,
        info(cl.CL_DEVICE_GLOBAL_MEM_CACHE_SIZE, ctypes.c_uint64),
        info(cl.CL_DEVICE_GLOBAL_MEM_SIZE, ctypes.c_uint64),
    )


def arch_only(opened: Any, renderer: Any) -> Facts:
    """Of a device that tells no more than its arch."""
    device, arch = renderer.target.device, (renderer.target.arch or opened.arch or "unknown").split(",")[0]
    return Facts(arch, f"{device} {arch}", 0, _tinygrad(opened, renderer), ASSUMED_GPU_CACHE_NBYTES, 0)


def _tinygrad(opened: Any, renderer: Any) -> str:
    return f"tinygrad {opened._renderer_name(type(renderer))}"


def _output(*command: str) -> str:
    """What `command` prints, or "" where there is no such program or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _sysctl_int(*names: str) -> int:
    """The first of these sysctl values that macOS has, else 0."""
    values = (_output("/usr/sbin/sysctl", "-n", name) for name in names)
    return next((int(v) for v in values if v.isdigit() and int(v) > 0), 0)
