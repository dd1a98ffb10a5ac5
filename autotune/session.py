"""What a command that measures works with: the chosen device behind a runner, and the store. It measures nothing."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autotune import __version__
from autotune.commit import COMMIT, commit
from autotune.load import LOAD, Load
from autotune.settings import Settings
from db.records import Run, Workload
from kernels import backends, devices

if TYPE_CHECKING:  # imported while the device is tried, see `session`
    from autotune.trial.messages import DeviceInfo
    from autotune.trial.runner import Runner
    from db.store import Store


@dataclass(frozen=True)
class Session:
    """A device that a runner owns, and a store to write to. `load`: what else the machine does meanwhile."""

    settings: Settings
    choice: devices.Choice
    store: Store
    runner: Runner
    load: Load = field(default_factory=Load)

    @property
    def info(self) -> DeviceInfo:
        """The device; waits until it is open. Raises RunnerError if it does not open."""
        return self.runner.describe()

    def run(self, command: str, beam_width: int, budget_seconds: float) -> Run:
        """A new run with the versions of everything that its figures depend on, and what else the machine does."""
        versions = (
            *self.info.versions,
            ("python", platform.python_version()),
            ("tinygrad-autotune", __version__),
            ("clock", self.info.clock),
            *((COMMIT, known) for known in [commit()] if known),
            *((LOAD, note) for note in [self.load.note()] if note),
        )
        return Run(str(uuid.uuid4()), command, beam_width, budget_seconds, versions)


def choose(settings: Settings) -> devices.Choice:
    """The device that `settings` ask for; tinygrad is not told yet. Raises DeviceError."""
    return devices.choose_device({**os.environ, **({"DEV": settings.device} if settings.device else {})})


@contextmanager
def session(settings: Settings) -> Iterator[Session]:
    """A store, and a device that opens while the caller goes on; its process ends with the context.

    Raises DeviceError or PatchError for a device that cannot be used, StoreError for such a store.
    """
    load = Load()
    with ThreadPoolExecutor(1) as background:
        choosing = background.submit(choose, settings)  # tries devices in child processes; the rest takes as long
        from autotune.trial.runner import Runner
        from db.store import Store

        store = Store.open(settings.db)
        choice = choosing.result()
    load.gpu = backends.find(choice.device).busy()
    devices.activate(choice)
    with Runner(choice) as runner:
        yield Session(settings, choice, store, runner, load)


def is_current(w: Workload, digest: str) -> bool:
    """Whether `digest` is that of the workload's kernel here."""
    from kernels.ops.registry import kernel_digest

    return missing_kernel(w) is None and kernel_digest(w) == digest


def missing_kernel(w: Workload) -> str | None:
    """Why there is no kernel for a workload; None if there is one."""
    from kernels.formats import FormatError
    from kernels.ops import registry

    try:
        return None if registry.variants(w) else "no variant has parameters for this shape"
    except (registry.KernelError, FormatError) as e:
        return str(e)
