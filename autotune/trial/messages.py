"""What the runner and its child say to each other, and what the runner hands on: frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from db.records import Outcome, Target

if TYPE_CHECKING:
    from kernels.tinygrad.renderers import Renderer


@dataclass(frozen=True)
class DeviceInfo:
    """The device that a runner owns. `renderer` is what a CompilePool needs."""

    target: Target
    renderer: Renderer
    clock: str
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Prepared:
    """The inputs on the device: one copy of the weight is `weight_nbytes`, and launches rotate through `copies`."""

    weight_nbytes: int
    copies: int


@dataclass(frozen=True)
class Timing:
    """Seconds of each launch on the device's clock, cold. Not OK: `reason` says why, and `samples` are what there is
    (a SLOW kernel's few; none after a fault)."""

    outcome: Outcome
    samples: tuple[float, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class LoadedPass:
    """A model on the device: `layers` of its `of_layers` layers, made in `seconds`."""

    layers: int
    of_layers: int
    seconds: float


@dataclass(frozen=True)
class Request:
    """A method of Bench and its keyword arguments."""

    verb: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """The request failed in a way that has a name. `fatal`: the device may be broken, replace this process."""

    outcome: Outcome
    reason: str
    fatal: bool
