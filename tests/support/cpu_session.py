"""Sessions on a CPU device inside a test: what choosing a device does to this process is undone afterwards."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache

import pytest
from tinygrad import helpers

from kernels.devices import activate
from support.cpu_device import cpu


@cache
def _own_folder() -> str:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return folder.name


def use_cpu(patch: pytest.MonkeyPatch) -> str:
    """Makes a CPU device tinygrad's and DEV's until `patch` is undone; its name as DEV spells it."""
    choice = cpu()
    patch.setenv("DEV", choice.device)
    patch.setenv("XDG_RUNTIME_DIR", _own_folder())  # sweeps of other tests' processes do not hold it up
    patch.setattr(helpers.DEV, "value", helpers.DEV.value)
    if choice.cc is not None:
        patch.setenv("CC", choice.cc)
    activate(choice)
    return choice.device
