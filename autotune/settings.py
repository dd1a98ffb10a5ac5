"""What the tuner is asked to do, in one frozen value; the only reader of AUTOTUNE_* in this package.

AUTOTUNE_DB       store to use: a path or an SQLAlchemy URL (default: the platform's data folder)
AUTOTUNE_BEAM     beam width: schedules kept after each step of a search (default 4)
AUTOTUNE_BUDGET   seconds a workload, with all that it takes (default 4)
AUTOTUNE_WORKERS  compiler processes (default: one for each CPU thread that it may use, at most 16)
AUTOTUNE_THREADS  threads that compute on a CPU, see kernels.host.threads
AUTOTUNE_LOOKUP   on, exact or off, see kernels.serve.modes
DEV               tinygrad's own variable; unset, kernels.devices chooses
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from db.errors import SettingError
from kernels.host import threads
from kernels.serve.modes import LOOKUP_MODES, lookup_mode

MAX_DEFAULT_WORKERS = 16


def default_workers() -> int:
    """One for each processor that this process may use, at most MAX_DEFAULT_WORKERS."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(usable or 1, MAX_DEFAULT_WORKERS)


@dataclass(frozen=True)
class Settings:
    """`db` and `device` are None where the defaults decide (db.paths.default_store, kernels.devices.choose_device).
    heuristic: also time what tinygrad's heuristic makes of a workload. exact: plan models with activations in float32
    where their linears would else read int8 (`kernels.host.int8`).

    Raises SettingError, also through dataclasses.replace, for a number that is out of its range.
    """

    db: str | None = None
    device: str | None = None
    beam_width: int = 4
    budget_seconds: float = 4.0
    workers: int = field(default_factory=default_workers)
    lookup: str = LOOKUP_MODES[0]
    heuristic: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        for _, name, _, low, high in _NUMBERS:
            _check(name, getattr(self, name), low, high)
        if self.lookup not in LOOKUP_MODES:
            raise SettingError(f"lookup={self.lookup!r}: expected one of {', '.join(LOOKUP_MODES)}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The settings that `environ` asks for; a variable that is unset or blank leaves its default.

        Raises SettingError, or ThreadsError, naming the variable and its value.
        """
        given: dict[str, Any] = {}
        for variable, name, parse, low, high in _NUMBERS:
            if text := environ.get(variable, "").strip():
                try:
                    value = parse(text)
                except ValueError:
                    kind = "whole number" if parse is int else "number"
                    raise SettingError(f"{variable}={text!r}: expected a {kind} of {low} to {high}") from None
                given[name] = _check(variable, value, low, high)
        if environ.get(threads.VARIABLE):
            threads.count(environ)
        db, device = (environ.get(variable, "").strip() or None for variable in ("AUTOTUNE_DB", "DEV"))
        return cls(db=db, device=device, lookup=lookup_mode(environ), **given)


# variable, field, how its text is read, least and greatest value
_NUMBERS: tuple[tuple[str, str, type[int] | type[float], int, int], ...] = (
    ("AUTOTUNE_BEAM", "beam_width", int, 1, 1024),
    ("AUTOTUNE_BUDGET", "budget_seconds", float, 0, 7 * 86400),
    ("AUTOTUNE_WORKERS", "workers", int, 1, 256),
)


def _check(name: str, value: float, low: int, high: int) -> float:
    """`value` if it is within low..high; NaN is within nothing."""
    if not (math.isfinite(value) and low <= value <= high):
        raise SettingError(f"{name}={value!r}: expected {low} to {high}")
    return value
