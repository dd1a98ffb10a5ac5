"""A model loaded to be run: the device chosen, memory checked, the store that serves it known. Runs nothing yet."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from autotune.explain import Stored
from autotune.settings import Settings
from autotune.transfer import served_if_any
from db.errors import AutotuneError
from db.lookup import Lookup
from db.records import Target
from kernels import backends, devices, llm
from kernels.models.header import Header
from kernels.models.passes import CONTEXT
from kernels.serve import server
from kernels.serve.resolution import STEPS

# how tinygrad's backends report that there is no room: the latter two speak of "memory" then
_NO_ROOM = (MemoryError, RuntimeError, OSError)


class ModelMemoryError(AutotuneError, ValueError):
    """The device has no room for the model. The message says what it takes, and what would take less."""


class CacheError(AutotuneError):
    """tinygrad's cache of compiled kernels on disk cannot be read or written."""


@dataclass(frozen=True)
class LoadedModel:
    """`model` is kernels.llm's, of the file at `path`. steps: how many launches of a token each lookup step serves.
    stale: how many of them the store has a schedule for that was accepted for another version of the kernel's source.
    """

    path: str
    model: Any
    choice: devices.Choice
    target: Target
    sizes: llm.Sizes
    steps: Mapping[str, int]
    stale: int
    weights_nbytes: int  # that a token reads

    @property
    def launches(self) -> int:
        return sum(self.steps.values())

    def running(self) -> AbstractContextManager[None]:
        """Around what runs the model: raises ModelMemoryError where memory runs out, CacheError where the disk does."""
        return _running(self.path, self.choice.device, self.sizes)


def plan_model(header: Header, choice: devices.Choice, context: int | None = None) -> llm.PlannedModel:
    """The model of a header on the device of `choice`, which is not loaded. context: tokens that the cache will hold,
    4096 by default; what the model knows if that is less. Raises ModelError, HeaderError."""
    return llm.plan(header, CONTEXT if context is None else context, choice.device)


def load_model(plan: llm.PlannedModel, settings: Settings, choice: devices.Choice) -> LoadedModel:
    """Loads a model that was planned for the device of `choice` onto it, served from the settings' store.

    Raises HeaderError, DeviceError, ModelMemoryError, CacheError.
    """
    devices.activate(choice)
    device = choice.device
    target = devices.describe_target(device)
    if not backends.find(target.backend).computes:
        raise devices.DeviceError(f"DEV={device!r} computes nothing: choose another device with DEV or --device")
    server.use(server.Server(Lookup(settings.db), settings.lookup))
    room = devices.memory_nbytes(device)
    total = plan.sizes.weights_nbytes + plan.sizes.cache_nbytes
    if room and total > room:
        raise ModelMemoryError(_no_room(plan.path, device, plan.sizes, f"the device has {room / 1e9:.1f} GB"))
    with _running(plan.path, device, plan.sizes):
        model = llm.load_planned(plan)
    served = model.resolutions()
    stored = Stored(served_if_any(settings.db), target)
    counts = Counter(found.step for _, found in served)
    return LoadedModel(
        path=plan.path,
        model=model,
        choice=choice,
        target=target,
        sizes=model.sizes,
        steps={step: counts[step] for step in STEPS if counts[step]},
        stale=sum(stored.is_stale(w) for w, _ in served),
        weights_nbytes=sum(launch.nbytes(1) for launch in model.program.decode.launches),
    )


@contextmanager
def _running(path: str, device: str, needed: llm.Sizes) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as e:  # the stores' errors are StoreErrors: this is tinygrad's own file
        raise CacheError(devices.cache_problem(e)) from e
    except _NO_ROOM as e:
        if not isinstance(e, MemoryError) and "memory" not in str(e).lower():
            raise
        raise ModelMemoryError(_no_room(path, device, needed, str(e) or type(e).__name__)) from e


def _no_room(path: str, device: str, needed: llm.Sizes, why: str) -> str:
    return (
        f"{path} does not fit on {device}: weights {needed.weights_nbytes / 1e9:.1f} GB, cache "
        f"{needed.cache_nbytes / 1e9:.1f} GB; {why}: a shorter --ctx needs less cache"
    )
