"""What a device is: the Target that schedules are tuned for, its driver, caches and memory. One reader per backend.

Opens the device that it is asked about, in this process, through tinygrad. Choosing one is the matter of `devices`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from db.errors import AutotuneError
from db.records import Target
from kernels.tinygrad import hostcc

MiB = 2**20
# No interface tells these two. Too large only makes a cold-cache measurement flush more than it must.
ASSUMED_GPU_CACHE_NBYTES = 128 * MiB  # more than any GeForce's L2 (RTX 5090: 96 MiB)
# System-level cache by Apple chip family: M1..M4 have 8, Pro 12..24, Max 48, Ultra 96 MiB (published die analyses).
_APPLE_CACHE_MIB = {"ultra": 96, "max": 48, "pro": 24}

_OPEN_FAILURES = (
    RuntimeError,  # drivers' error codes, no such renderer
    OSError,
    AttributeError,  # a library that tinygrad could not load
    AssertionError,
    ImportError,
    LookupError,
    MemoryError,
    subprocess.SubprocessError,
    sqlite3.Error,  # tinygrad's cache of compiled kernels, on a full disk
    ExceptionGroup,
)


class DeviceError(AutotuneError, ValueError):
    """No such device, or none that works: the message names the value seen and the remedy."""


@dataclass(frozen=True)
class Facts:
    """What a backend tells about a device. `nbytes` are 0 where it does not tell."""

    arch: str
    name: str
    compute_units: int
    driver: str
    cache_nbytes: int
    memory_nbytes: int


def describe_target(device: str) -> Target:
    """The Target of `device`: a tinygrad device ("CPU", "CUDA:1") or as DEV spells it ("CPU:X86"). Memoised.

    Opens the device. The backend carries the renderer if that is not the device's first ("CPU:X86").
    Raises DeviceError when the device does not open.
    """
    return _read(device)[0]


def driver_version(device: str) -> str:
    """The driver's version; on a CPU the compiler's, which plays that part there."""
    return _read(device)[1].driver


def last_level_cache_nbytes(device: str) -> int:
    """Size of the largest cache before memory. Documented assumptions stand in on METAL and NV, which don't tell."""
    return _read(device)[1].cache_nbytes


def memory_nbytes(device: str) -> int:
    """Memory that the device can use; 0 if its backend does not tell."""
    return _read(device)[1].memory_nbytes


def cache_problem(error: sqlite3.Error) -> str:
    """What failed where tinygrad compiles a kernel and cannot keep it on disk, and the remedy."""
    return f"tinygrad's cache of compiled kernels on disk: {error}; free disk space, or set CACHELEVEL=0"


def printable(text: str) -> str:
    """`text` as one printable line of 1..200 characters, fit for a Target."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:200].strip() or "unknown"


def _read(device: str) -> tuple[Target, Facts]:
    from tinygrad import helpers

    return _read_cached(device, repr(helpers.DEV))


@lru_cache
def _read_cached(device: str, dev: str) -> tuple[Target, Facts]:
    """`dev` (tinygrad's DEV) is part of the key because it picks the renderer of a bare device name."""
    from tinygrad import Device
    from tinygrad.helpers import Context

    base, _, rest = device.split(";")[0].split("+")[-1].partition(":")
    numbered = rest.isdigit()
    try:
        with nullcontext() if not rest or numbered else Context(DEV=device):
            opened = Device[f"{base}:{rest}" if numbered else base]
            renderer = opened.renderer
        name = base.upper()
        facts = _READERS.get(name, _other)(opened, renderer)
    except _OPEN_FAILURES as error:
        reason = "; ".join(map(str, error.exceptions)) if isinstance(error, ExceptionGroup) else str(error)
        if isinstance(error, sqlite3.Error):
            reason = cache_problem(error)
        raise DeviceError(f"device {device!r} does not open: {printable(reason or repr(error))}") from error
    default = type(renderer) is opened.renderers[0]
    backend = name if default else f"{name}:{opened._renderer_name(type(renderer))}"
    return Target(backend, printable(facts.arch), printable(facts.name), facts.compute_units), facts


def _cpu(opened: Any, renderer: Any) -> Facts:
    compiler = hostcc.find() if type(renderer) is opened.renderers[0] else None
    return Facts(
        opened.arch.split(",")[0],
        _cpu_name(),
        os.cpu_count() or 1,
        hostcc.compiler_version(compiler.path) if compiler else _tinygrad(opened, renderer),
        _sysctl_int("hw.l3cachesize", "hw.l2cachesize") or cpu_cache_nbytes(),
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    )


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    if brand := _output("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"):
        return brand
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def cpu_cache_nbytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """The largest cache that sysfs lists for the first CPU ("32768K" is 32 MiB); 32 MiB if it lists none."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = [re.fullmatch(r"(\d+)([KMG]?)\s*", path.read_text()) for path in folder.glob("index*/size")]
    return max((int(s[1]) * units.get(s[2], 1) for s in sizes if s), default=0) or 32 * MiB


def _metal(opened: Any, renderer: Any) -> Facts:
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


def _cuda(opened: Any, renderer: Any) -> Facts:
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


def _nv(opened: Any, renderer: Any) -> Facts:
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


def _amd(opened: Any, renderer: Any) -> Facts:
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


def _cl(opened: Any, renderer: Any) -> Facts:
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


def _other(opened: Any, renderer: Any) -> Facts:
    """QCOM, WEBGPU, NULL and the like: the arch is all that tinygrad knows."""
    device, arch = renderer.target.device, (renderer.target.arch or opened.arch or "unknown").split(",")[0]
    return Facts(arch, f"{device} {arch}", 0, _tinygrad(opened, renderer), ASSUMED_GPU_CACHE_NBYTES, 0)


def _tinygrad(opened: Any, renderer: Any) -> str:
    return f"tinygrad {opened._renderer_name(type(renderer))}"


_READERS: dict[str, Callable[[Any, Any], Facts]] = {
    "CPU": _cpu,
    "METAL": _metal,
    "CUDA": _cuda,
    "NV": _nv,
    "AMD": _amd,
    "CL": _cl,
}


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
