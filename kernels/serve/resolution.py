"""Workload -> Schedule: the lookup order. A miss never searches and never raises; every answer is remembered.

1 user        the user's store: this workload, target and kernel source
2 packaged    the same from the store that travels in the package
3 same_arch   the same, tuned on another device of this backend and arch
4 nearest     the nearest shape of this op and format, if it is near enough and its opts apply here
5 default     the op's hand-chosen schedule for the backend
6 untuned     tinygrad's heuristic
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass

from db.lookup import Lookup
from db.records import Schedule, Served, Target, Workload
from kernels.ops.registry import kernel_digest
from kernels.serve import defaults, sink
from kernels.serve.modes import lookup_mode

STEPS = ("user", "packaged", "same_arch", "nearest", "default", "untuned")


@dataclass(frozen=True)
class Resolution:
    """The schedule that serves a workload, the step of STEPS that gave it, and the stored row behind it, if any."""

    schedule: Schedule
    step: str
    served: Served | None = None


class Resolver:
    """Answers from one pair of stores. Threads may share it."""

    def __init__(self, lookup: Lookup | None = None, mode: str | None = None) -> None:
        self._lookup = Lookup() if lookup is None else lookup
        self._mode = lookup_mode() if mode is None else mode
        self._lock = threading.Lock()
        self._known: dict[tuple[Workload, Target], Resolution] = {}

    def __call__(self, workload: Workload, target: Target) -> Resolution:
        """Raises KernelError or FormatError for a workload that these kernels do not have."""
        try:
            return self._known[workload, target]
        except KeyError:
            pass
        with self._lock:  # one thread asks the stores, the others wait for its answer
            key = (workload, target)
            if key not in self._known:
                self._known[key] = self._stored(workload, target) or _default(workload, target)
            return self._known[key]

    def _stored(self, w: Workload, target: Target) -> Resolution | None:
        if self._mode == "off":
            return None
        digest = kernel_digest(w)
        if served := self._lookup.exact(w, target, digest):
            return Resolution(served.schedule, served.origin, served)
        if self._mode == "exact":
            return None
        near = functools.partial(self._lookup.nearest, within=defaults.near_enough(target.backend))
        for step, ask in (("same_arch", self._lookup.same_arch), ("nearest", near)):
            served = ask(w, target, digest)
            if served and sink.applies(w, served.schedule, _device(target)):
                return Resolution(served.schedule, step, served)
        return None


def _device(target: Target) -> str:
    """The tinygrad device of a target: its backend without the renderer."""
    return target.backend.split(":")[0]


def _default(w: Workload, target: Target) -> Resolution:
    for schedule in defaults.defaults(w, target.backend):
        if sink.applies(w, schedule, _device(target)):
            return Resolution(schedule, "default")
    return Resolution(defaults.untuned(w), "untuned")


_shared: Resolver | None = None


def serve_from(lookup: Lookup, mode: str) -> None:
    """Has `resolve` ask these stores from now on, in this AUTOTUNE_LOOKUP mode, and forget what it knew."""
    global _shared
    _shared = Resolver(lookup, mode)


def resolve(workload: Workload, target: Target) -> Resolution:
    """The schedule for a workload on a target, and the step that gave it. Memoised for the life of the process."""
    global _shared
    if _shared is None:
        _shared = Resolver()
    return _shared(workload, target)
