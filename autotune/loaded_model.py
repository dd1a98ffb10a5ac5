"""Loads a model for running: activates the device, checks its memory, and sets the store that serves the schedules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from autotune.settings import Settings
from autotune.stale import Stored
from autotune.transfer import served_if_any
from db.errors import AutotuneError
from db.lookup import Lookup
from db.records import Target
from kernels import backends, devices, llm
from kernels.llm.weights import Weights
from kernels.models.header import Header
from kernels.models.passes import CONTEXT
from kernels.ops.tolerance import tolerance
from kernels.serve import server
from kernels.serve.resolution import STEPS

# The errors by which tinygrad's backends report that memory is exhausted. The last two then mention "memory".
_NO_ROOM = (MemoryError, RuntimeError, OSError)


class ModelMemoryError(AutotuneError, ValueError):
    """The device's memory is too small for the model. The message has the sizes and the remedy."""


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model.

    path             the model's file
    model            the `kernels.llm` model
    steps            lookup step -> number of launches of a decoded token that it serves
    stale            the number of launches whose stored schedule was accepted for another version of the kernel's
                     source
    weights_nbytes   bytes of weights that decoding one token reads
    """

    path: str
    model: Any
    choice: devices.Choice
    target: Target
    sizes: llm.Sizes
    steps: Mapping[str, int]
    stale: int
    weights_nbytes: int

    @property
    def launches(self) -> int:
        return sum(self.steps.values())

    def running(self) -> AbstractContextManager[None]:
        """A context in which the model is run. Raises ModelMemoryError if memory is exhausted."""
        return _running(self.path, self.choice.device, self.sizes)


def plan_model(
    header: Header, choice: devices.Choice, context: int | None = None, exact: bool = False
) -> llm.PlannedModel:
    """Plans the model of a header for the device of `choice`, without loading it. context: number of positions in the
    cache, by default 4096, limited to the model's own context. exact: whether all activations stay float32. Raises
    ModelError, HeaderError."""
    return llm.plan(header, CONTEXT if context is None else context, choice.device, exact)


def load_model(
    plan: llm.PlannedModel,
    settings: Settings,
    choice: devices.Choice,
    on_loaded: Callable[[int], None] = lambda nbytes: None,
) -> LoadedModel:
    """Loads a planned model on the device of `choice`. Schedules come from the store in the settings. on_loaded: called
    after each weight with the bytes of all weights on the device.

    Raises HeaderError, DeviceError, ModelMemoryError.
    """
    devices.activate(choice)
    device = choice.device
    target = devices.describe_target(device)
    if not backends.find(target.backend).computes:
        raise devices.DeviceError(f"DEV={device!r} computes nothing: choose another device with DEV or --device")
    server.use(server.Server(Lookup(settings.db, limit=tolerance), settings.lookup))
    room = devices.facts(device).memory_nbytes
    total = plan.sizes.weights_nbytes + plan.sizes.cache_nbytes
    if room and total > room:
        raise ModelMemoryError(_no_room(plan.path, device, plan.sizes, f"the device has {room / 1e9:.1f} GB"))
    with _running(plan.path, device, plan.sizes):
        model = llm.load_planned(plan, None, Weights, on_loaded)
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
    except _NO_ROOM as e:
        if not isinstance(e, MemoryError) and "memory" not in str(e).lower():
            raise
        raise ModelMemoryError(_no_room(path, device, needed, str(e) or type(e).__name__)) from e


def _no_room(path: str, device: str, needed: llm.Sizes, why: str) -> str:
    return (
        f"{path} does not fit on {device}: weights {needed.weights_nbytes / 1e9:.1f} GB, cache "
        f"{needed.cache_nbytes / 1e9:.1f} GB; {why}: use a smaller --ctx, which needs less cache"
    )
