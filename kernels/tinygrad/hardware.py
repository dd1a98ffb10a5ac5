"""What a device is: the Target that schedules are tuned for, its driver, caches and memory.

Opens the device that it is asked about, in this process, through tinygrad. Choosing one is the matter of `devices`.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import nullcontext
from functools import lru_cache

from db.errors import AutotuneError
from db.records import Target
from kernels import backends
from kernels.host import threads
from kernels.tinygrad.facts import Facts, executes

_OPEN_FAILURES = (
    RuntimeError,  # drivers' error codes, no such renderer
    OSError,
    AttributeError,  # a library that tinygrad could not load
    AssertionError,
    ImportError,
    LookupError,
    MemoryError,
    subprocess.SubprocessError,
    ExceptionGroup,
)


class DeviceError(AutotuneError, ValueError):
    """No such device, or none that works: the message names the value seen and the remedy."""


def describe_target(device: str) -> Target:
    """The Target of `device`: a tinygrad device ("CPU", "CUDA:1") or as DEV spells it ("CPU:X86"). Memoised.

    Opens the device. The backend carries the renderer if that is not the device's first ("CPU:X86").
    Raises DeviceError when the device does not open.
    """
    return _read(device)[0]


def facts(device: str) -> Facts:
    """What `device`, spelled in the same way, tells about itself. Memoised; raises DeviceError too."""
    return _read(device)[1]


def clock(device: str) -> str:
    """Where the seconds of a launch on `device` come from, which this opens."""
    from kernels.tinygrad.renderers import device_renderer

    row = backends.find(device)
    return backends.EXECUTOR_CLOCK if row.host and executes(device_renderer(row.device)) else row.clock


def printable(text: str) -> str:
    """`text` as one printable line of 1..200 characters, fit for a Target."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:200].strip() or "unknown"


def _read(device: str) -> tuple[Target, Facts]:
    from tinygrad import helpers

    return _read_cached(device, repr(helpers.DEV), os.environ.get(threads.VARIABLE, ""))


@lru_cache
def _read_cached(device: str, dev: str, count: str) -> tuple[Target, Facts]:
    """`dev` (tinygrad's DEV) is part of the key because it picks the renderer of a bare device name, `count` because it
    is the number of a host's threads."""
    from tinygrad import Device
    from tinygrad.helpers import Context

    from kernels.tinygrad import compiler_cache

    compiler_cache.patch_tinygrad()
    base, _, rest = device.split(";")[0].split("+")[-1].partition(":")
    numbered = rest.isdigit()
    try:
        with nullcontext() if not rest or numbered else Context(DEV=device):
            opened = Device[f"{base}:{rest}" if numbered else base]
            renderer = opened.renderer
        name = base.upper()
        told = backends.find(name).facts(opened, renderer)
    except _OPEN_FAILURES as error:
        reason = "; ".join(map(str, error.exceptions)) if isinstance(error, ExceptionGroup) else str(error)
        raise DeviceError(f"device {device!r} does not open: {printable(reason or repr(error))}") from error
    default = type(renderer) is opened.renderers[0]
    backend = name if default else f"{name}:{opened._renderer_name(type(renderer))}"
    return Target(backend, printable(told.arch), printable(told.name), told.compute_units), told
