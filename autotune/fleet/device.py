"""The device that a worker process owns, opened once, and one workload tuned on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from autotune.device_lock import alone
from autotune.load import Load
from autotune.session import Session, choose
from autotune.settings import Settings
from autotune.trial.compiler import CompilePool
from autotune.trial.messages import DeviceInfo
from autotune.trial.runner import Runner
from autotune.tune import Result, Tuner
from db.engine import empty_engine
from db.records import Workload
from db.store import Store
from kernels import backends, devices

CORES = "CPU_VISIBLE_DEVICES"
"""The processors that a worker on a CPU keeps to, as in 0,1. Devices that differ in it are locked apart."""


class Device(Protocol):
    """What a worker needs of its device. `name` is what DEV spells."""

    @property
    def name(self) -> str: ...

    @property
    def info(self) -> DeviceInfo: ...

    def tune(self, store: Store, effort: Effort, w: Workload) -> Result:
        """Tunes a workload into `store`. Raises AutotuneError."""

    def copy_bandwidth(self) -> float: ...


@dataclass(frozen=True)
class Effort:
    """What a client asks for; `command` is what the store remembers of it. heuristic: tinygrad's own is timed, too."""

    command: str
    beam_width: int
    budget_seconds: float
    heuristic: bool = False


@dataclass(frozen=True)
class OwnDevice:
    """A device behind a runner, and a pool of compilers; both end with this process. Not for two threads at once."""

    session: Session
    pool: CompilePool

    @property
    def name(self) -> str:
        return self.session.choice.device

    @property
    def info(self) -> DeviceInfo:
        return self.session.info

    def tune(self, store: Store, effort: Effort, w: Workload) -> Result:
        s = replace(self.session, store=store)
        run = s.run(effort.command, effort.beam_width, effort.budget_seconds)
        with alone(self.name):
            return Tuner(store, s.runner, self.pool, run, heuristic=effort.heuristic).tune(w)

    def copy_bandwidth(self) -> float:
        return self.session.runner.copy_bandwidth()


def open_device() -> Device:
    """The device that the environment asks for. Raises AutotuneError."""
    settings = Settings.from_environment()
    if cores := os.environ.get(CORES, ""):
        _keep_to({int(core) for core in cores.split(",")})
    choice = choose(settings)
    load = Load()
    load.gpu = backends.find(choice.device).busy()
    devices.activate(choice)
    runner = Runner(choice).__enter__()
    session = Session(settings, choice, Store("a worker's own", empty_engine()), runner, load)
    return OwnDevice(session, CompilePool(session.info.renderer, settings.workers).__enter__())


def _keep_to(cores: set[int]) -> None:
    """This process, and what it starts, on these processors alone."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    os.environ["NUM_CPU_THREADS"] = str(len(cores))  # tinygrad's: it asks for those of the machine


Opener = Callable[[], Device]
_opened: list[Device] = []


def own(opener: Opener = open_device) -> Device:
    """This process' device, opened by the first call."""
    if not _opened:
        _opened.append(opener())
    return _opened[0]


def info_to_json(device: Device) -> dict[str, Any]:
    from db.codec import target_to_json

    info = device.info
    return {
        "device": device.name,
        "target": target_to_json(info.target),
        "clock": info.clock,
        "versions": dict(info.versions),
    }
