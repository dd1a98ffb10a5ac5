"""A model opened to be run: the device chosen, memory checked, the store that serves it known. Runs nothing yet."""

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
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.passes import CONTEXT
from kernels.serve import resolution
from kernels.serve.resolution import STEPS

# how tinygrad's backends report that there is no room: the latter two speak of "memory" then
_NO_ROOM = (MemoryError, RuntimeError, OSError)


class ModelMemoryError(AutotuneError, ValueError):
    """The device has no room for the model. The message says what it takes, and what would take less."""


class CacheError(AutotuneError):
    """tinygrad's cache of compiled kernels on disk cannot be read or written."""


@dataclass(frozen=True)
class Opened:
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


def context_of(header: Header, asked: int | None) -> int:
    """Tokens that the cache will hold: as asked, 4096 by default, but not more than the model knows.

    Raises ModelError, also for a model that cannot be run.
    """
    asked = CONTEXT if asked is None else asked
    llm.sizes(header, asked)
    return min(asked, Hyperparameters(header).integer("context_length", asked))


def vocabulary(header: Header) -> int:
    """Token ids that the model knows. Raises HeaderError."""
    return Hyperparameters(header).need("token_embd.weight").shape[0]


def open_model(
    path: str, header: Header, settings: Settings, choice: devices.Choice, context: int | None = None
) -> Opened:
    """Loads a model onto the device of `choice`, served from the settings' store.

    Raises ModelError, HeaderError, DeviceError, ModelMemoryError, CacheError.
    """
    context = context_of(header, context)
    needed = llm.sizes(header, context)
    devices.activate(choice)
    device = choice.device
    target = devices.describe_target(device)
    if not backends.find(target.backend).computes:
        raise devices.DeviceError(f"DEV={device!r} computes nothing: choose another device with DEV or --device")
    resolution.serve_from(Lookup(settings.db), settings.lookup)
    room = devices.memory_nbytes(device)
    total = needed.weights_nbytes + needed.cache_nbytes
    if room and total > room:
        raise ModelMemoryError(_no_room(path, device, needed, f"the device has {room / 1e9:.1f} GB"))
    with _running(path, device, needed):
        model = llm.load(path, context)
    served = model.resolutions()
    stored = Stored(served_if_any(settings.db), target)
    counts = Counter(found.step for _, found in served)
    return Opened(
        path=path,
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
