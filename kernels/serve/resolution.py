"""Workload -> Schedule: the lookup order. A miss never searches and never raises.

1 user        the user's store: this workload, target and kernel source
2 packaged    the same from the store that travels in the package
3 same_arch   the same, tuned on another device of this backend and arch
4 nearest     the nearest shape of this op and format, if it is near enough and its opts apply here
5 default     the op's hand-chosen schedule for the backend
6 untuned     tinygrad's heuristic
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from db.lookup import Lookup
from db.records import Schedule, Served, Target, Workload
from kernels.ops.registry import kernel_digest
from kernels.serve import defaults

STEPS = ("user", "packaged", "same_arch", "nearest", "default", "untuned")

Applies = Callable[[Workload, Schedule], bool]
"""Whether a schedule can be built for a workload on the target that is asked about."""


@dataclass(frozen=True)
class Resolution:
    """The schedule that serves a workload, the step of STEPS that gave it, and the stored row behind it, if any."""

    schedule: Schedule
    step: str
    served: Served | None = None


def look_up(w: Workload, target: Target, lookup: Lookup, mode: str, applies: Applies) -> Resolution:
    """The first step that has an answer, in a mode of AUTOTUNE_LOOKUP. What was tuned for this very workload and
    target is not checked with `applies` here.

    Raises KernelError or FormatError for a workload that these kernels do not have.
    """
    return _stored(w, target, lookup, mode, applies) or _default(w, target, applies)


def _stored(w: Workload, target: Target, lookup: Lookup, mode: str, applies: Applies) -> Resolution | None:
    if mode == "off":
        return None
    digest = kernel_digest(w)
    if served := lookup.exact(w, target, digest):
        return Resolution(served.schedule, served.origin, served)
    if mode == "exact":
        return None
    near = functools.partial(lookup.nearest, within=defaults.near_enough(target.backend))
    for step, ask in (("same_arch", lookup.same_arch), ("nearest", near)):
        served = ask(w, target, digest)
        if served and applies(w, served.schedule):
            return Resolution(served.schedule, step, served)
    return None


def _default(w: Workload, target: Target, applies: Applies) -> Resolution:
    for schedule in defaults.defaults(w, target.backend):
        if applies(w, schedule):
            return Resolution(schedule, "default")
    return Resolution(defaults.untuned(w), "untuned")
