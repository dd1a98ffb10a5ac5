"""Which tinygrad device to use, and making it so: METAL, other GPUs, CPU with a compiler, CPU:X86 without one.

tinygrad's own choice opens every device in this process, leaves what it opened behind, and takes OpenCL on the CPU
for a GPU. Here a GPU is tried in a process of its own, which may hang or abort, and only after a look at its driver's
files. What a chosen device is like is `hardware`'s matter; compilers are `hostcc`'s.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kernels.tinygrad import hostcc
from kernels.tinygrad.hardware import (
    DeviceError,
    cache_problem,
    describe_target,
    driver_version,
    last_level_cache_nbytes,
    memory_nbytes,
)

__all__ = [
    "Choice",
    "DeviceError",
    "Finding",
    "activate",
    "cache_problem",
    "choose_device",
    "describe_target",
    "driver_version",
    "last_level_cache_nbytes",
    "memory_nbytes",
    "probe_device",
]

GPUS = ("METAL", "AMD", "NV", "CUDA", "QCOM", "CL")
ON_REQUEST = ("CPU", "WEBGPU", "DSP", "NULL", "PYTHON")  # these are used when DEV names them; CPU also as a fallback
WITHOUT_RESULTS = ("NULL",)  # kernels are rendered and compiled for it, and compute nothing
CPU_RENDERERS = {"": True, "CLANG": True, "LLVM": False, "LVP": False, "X86": False}  # name -> needs a C compiler

_PROBE_SECONDS = 60
# A device counts when it opens and computes: one that opens may still lack its compiler. An OpenCL device of type
# CPU (CL_DEVICE_TYPE, bit 2) is told apart before it compiles anything, which takes PoCL a second: "quick".
_PROBE = """
import ctypes, json, sys
from tinygrad import Device, Tensor
device, cpu = Device[Device.DEFAULT], False
if Device.DEFAULT == "CL":
    from tinygrad.runtime.autogen import opencl as cl
    cl.clGetDeviceInfo(device.cl_dev, cl.CL_DEVICE_TYPE, 8, ctypes.byref(kind := ctypes.c_uint64()), None)
    cpu = bool(kind.value & 2)
quick = cpu and "quick" in sys.argv
if not quick and (seen := (Tensor([1.0, 2.0, 3.0]) * 2).tolist()) != [2.0, 4.0, 6.0]:
    raise RuntimeError(f"2 * [1, 2, 3] gave {seen}")
print(json.dumps({"cpu": cpu, "name": str(getattr(device, "device_name", device.arch or ""))}))
"""


@dataclass(frozen=True)
class Finding:
    """What trying a device gave. `detail`: its name, or why it cannot be used. `gpu` is False for a CPU in disguise."""

    ok: bool
    detail: str
    gpu: bool = True


@dataclass(frozen=True)
class Choice:
    """A device as DEV spells it, why it was chosen, how to get a faster one, and what was passed over and why.

    `cc` is the compiler that tinygrad is to be told about (None: its own default will do); `mend` says that the CPU
    device must open without one. Picklable, so that a child process can `activate` it too.
    """

    device: str
    reason: str
    faster: str | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    cc: str | None = None
    mend: bool = False


Probe = Callable[[str, Mapping[str, str]], Finding]


def absent(device: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Why `device` cannot be there, judging only by the platform and its driver's files; None if it may be."""
    nvidia = ("/dev/nvidiactl", "/dev/dxg")
    files = {  # one of these must exist
        "AMD": ("/dev/kfd",),
        "NV": nvidia[:1],
        "CUDA": nvidia,
        "QCOM": ("/dev/kgsl-3d0",),
        "DSP": ("/dev/adsprpc-smd",),
    }
    if device == "METAL":
        return None if sys.platform == "darwin" else "needs macOS"
    if device == "CL":
        named = environ.get("OCL_ICD_VENDORS") or environ.get("OCL_ICD_FILENAMES")
        if sys.platform == "darwin" or named or any(Path("/etc/OpenCL/vendors").glob("*.icd")):
            return None
        return "no OpenCL driver in /etc/OpenCL/vendors"
    wanted = files.get(device, ())
    return None if not wanted or any(map(os.path.exists, wanted)) else f"no driver: {' or '.join(wanted)} is missing"


def probe_device(device: str, environ: Mapping[str, str] = os.environ) -> Finding:
    """Try `device` (without renderer) in a child process; this one opens nothing. Up to a few seconds.

    OpenCL on the CPU has to compute something only if DEV asks for it: it is not chosen otherwise.
    """
    if why := absent(device, environ):
        return Finding(False, why)
    # On AMD and NV only the kernel driver's interface: tinygrad would go on to seize the bare PCI device.
    dev = {"AMD": "KFD+AMD", "NV": "NVK+NV"}.get(device, device)
    env = {**environ, "DEV": dev, "CCACHE": "0", "DEBUG": "0"}
    command = [sys.executable, "-P", "-c", _PROBE, "thorough" if device in environ.get("DEV", "").upper() else "quick"]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return Finding(False, f"did not compute 2 * [1, 2, 3] within {_PROBE_SECONDS} s")
    if done.returncode != 0:
        said = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", done.stderr).split("\n") if line.strip()]
        return Finding(False, f"does not work: {said[-1].strip(' |')[:200] if said else f'exit {done.returncode}'}")
    found = json.loads(done.stdout.strip().split("\n")[-1])
    if found["cpu"]:
        return Finding(True, f"{found['name']} is OpenCL on the CPU, used only if DEV={device} asks for it", gpu=False)
    return Finding(True, found["name"])


def choose_device(environ: Mapping[str, str] | None = None, probe: Probe = probe_device) -> Choice:
    """The device to use. DEV decides if it is set; else the first of METAL, other GPUs, CPU, CPU:X86 that works.

    Opens nothing here and changes nothing: `activate` does. Raises DeviceError for a DEV that is not a device or
    cannot be one here, and when no device can work.
    """
    environ = os.environ if environ is None else environ
    if dev := environ.get("DEV", "").strip():
        return _explicit(dev, environ)
    skipped: list[tuple[str, str]] = []
    for gpu in GPUS:
        finding = probe(gpu, environ)
        if finding.ok and finding.gpu:
            return Choice(gpu, f"first GPU that works: {finding.detail}", skipped=tuple(skipped))
        skipped.append((gpu, finding.detail))
    return _cpu(environ, tuple(skipped))


def _cpu(environ: Mapping[str, str], skipped: tuple[tuple[str, str], ...]) -> Choice:
    if (compiler := hostcc.find(environ)) is not None:
        reason = f"no GPU works here; CPU kernels are compiled by {compiler.kind} ({compiler.path})"
        faster = f"a GPU: {', '.join(GPUS)} are used without asking when they work"
        return Choice("CPU", reason, faster, skipped, _cc(compiler, environ))
    skipped += (("CPU", "no C compiler that tinygrad can use: neither CC, clang nor the ziglang wheel"),)
    if hostcc.machine() != "x86_64":
        raise DeviceError(f"no device works on this {hostcc.machine()} machine: {hostcc.INSTALL}")
    reason = "no GPU works here and there is no C compiler; tinygrad's own x86 assembler needs none"
    return Choice("CPU:X86", reason, f"about 5 times faster: {hostcc.INSTALL}", skipped, mend=True)


def _cc(compiler: hostcc.HostCompiler, environ: Mapping[str, str]) -> str | None:
    """The value for CC, or None if tinygrad would come to the same compiler by itself."""
    default = None if environ.get("CC") else shutil.which("clang", path=environ.get("PATH", ""))
    return None if compiler.path == default else compiler.path


def _explicit(dev: str, environ: Mapping[str, str]) -> Choice:
    """Check DEV=`dev` ([interface+]DEVICE[:RENDERER[:ARCH]], more after `;`) as far as possible without opening it."""
    first = dev.split(";")[0].split("+")[-1]
    name, _, rest = first.partition(":")
    name, renderer = name.upper(), rest.split(":")[0].upper()
    if name not in GPUS + ON_REQUEST:
        raise DeviceError(f"DEV={dev!r}: no such device; expected one of {', '.join(GPUS + ON_REQUEST)}")
    if renderer.isdigit():
        raise DeviceError(f"DEV={dev!r}: {renderer!r} is in the place of a renderer; DEV takes no device number")
    if why := absent(name, environ):
        raise DeviceError(f"DEV={dev!r}: {why}; unset DEV to use what this machine has")
    choice = Choice(dev, f"DEV={dev} asks for it")
    if name != "CPU":
        return choice
    if renderer not in CPU_RENDERERS:
        raise DeviceError(f"DEV={dev!r}: CPU has no renderer {renderer!r}; expected {', '.join(CPU_RENDERERS)[2:]}")
    if (compiler := hostcc.find(environ)) is not None:
        return Choice(dev, choice.reason, cc=_cc(compiler, environ))
    if CPU_RENDERERS[renderer]:
        other = ", or DEV=CPU:X86" if hostcc.machine() == "x86_64" else ""
        raise DeviceError(f"DEV={dev!r} needs a C compiler: {hostcc.INSTALL}{other}")
    return Choice(dev, choice.reason, f"DEV=CPU is about 5 times faster: {hostcc.INSTALL}", mend=True)


def named(device: str) -> str:
    """`device`, as tinygrad spells it ("CUDA:1"). Raises DeviceError for a name that is none of tinygrad's devices."""
    if device.split(":")[0].upper() not in GPUS + ON_REQUEST:
        raise DeviceError(f"device {device!r}: no such device; expected one of {', '.join(GPUS + ON_REQUEST)}")
    return device


def activate(choice: Choice) -> None:
    """Make tinygrad use `choice` in this process and in those it spawns. Works before and after tinygrad's import.

    Sets DEV (and CC) in os.environ. A child that opens the device calls this too: the mend is not inherited.
    Raises hostcc.MendError when the mend is needed and this tinygrad cannot be mended.
    """
    os.environ["DEV"] = choice.device
    if choice.cc is not None:
        os.environ["CC"] = choice.cc
    from tinygrad import helpers

    helpers.getenv.cache_clear()  # it remembers the CC that it saw first
    helpers.DEV.value = choice.device
    if choice.mend:
        hostcc.mend_no_clang()
