"""A CPU device for tests that need a real one wherever they run: with a C compiler, else through the x86 assembler."""

from __future__ import annotations

import os

from kernels.devices import Choice, DeviceError, choose_device


def cpu() -> Choice:
    dev = os.environ.get("DEV", "")
    try:
        return choose_device({**os.environ, "DEV": dev if dev.startswith("CPU") else "CPU"})
    except DeviceError:
        return choose_device({**os.environ, "DEV": "CPU:X86"})
