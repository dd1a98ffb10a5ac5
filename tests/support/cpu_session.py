"""Sessions on a CPU device inside a test: what choosing a device does to this process is undone afterwards."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from tinygrad import helpers

from autotune.session import Session, session
from autotune.settings import Settings
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


@contextmanager
def cpu_session(place: Path) -> Iterator[Session]:
    """A session on this machine's CPU, with one compile worker and a store at `place`."""
    with (
        pytest.MonkeyPatch.context() as patch,
        session(Settings(db=str(place), device=use_cpu(patch), workers=1)) as opened,
    ):
        yield opened
