"""Workload -> Schedule: the lookup order. A miss never searches. No step serves what was found wrong on this target.

1 user        the user's store: this workload, target and kernel source
2 packaged    the same from the store that travels in the package
3 same_arch   the same, tuned on another device of this backend and arch
4 nearest     the nearest shape of this op and format, if it is near enough and its opts apply here
5 default     the op's hand-chosen schedule for the backend
6 untuned     tinygrad's heuristic
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from db.codec import schedule_digest
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
    target is not checked with `applies` here. If every schedule was found wrong on the target, this is the untuned one,
    which `Server.serve` then refuses.

    Raises KernelError or FormatError for a workload that these kernels do not have.
    """
    served = None if mode == "off" else lookup.exact(w, target, kernel_digest(w))
    if served and served.origin == "user":  # the store itself leaves out what it knows to be wrong
        return Resolution(served.schedule, served.origin, served)
    wrong = _found_wrong(w, target, lookup, mode)
    if served and schedule_digest(served.schedule) not in wrong:
        return Resolution(served.schedule, served.origin, served)
    near = _near(w, target, lookup) if mode == "on" else ()
    for found in itertools.chain(near, _guesses(w, target)):  # lazily: nearest is asked only if need be
        if schedule_digest(found.schedule) not in wrong and (found.step == "untuned" or applies(w, found.schedule)):
            return found
    return Resolution(defaults.untuned(w), "untuned")


def fallbacks(w: Workload, target: Target, lookup: Lookup, mode: str) -> Iterator[Resolution]:
    """What may serve a workload without a stored schedule, best first: nothing that was found wrong on the target. The
    store is asked when the first is taken."""
    wrong = _found_wrong(w, target, lookup, mode)
    yield from (found for found in _guesses(w, target) if schedule_digest(found.schedule) not in wrong)


def _found_wrong(w: Workload, target: Target, lookup: Lookup, mode: str) -> Collection[str]:
    """Digests of the schedules that failed for a workload on a target when they were last tried there."""
    return () if mode == "off" else lookup.found_wrong(w, target, kernel_digest(w))


def _near(w: Workload, target: Target, lookup: Lookup) -> Iterator[Resolution]:
    near = functools.partial(lookup.nearest, within=defaults.near_enough(target.backend))
    for step, ask in (("same_arch", lookup.same_arch), ("nearest", near)):
        if served := ask(w, target, kernel_digest(w)):
            yield Resolution(served.schedule, step, served)


def _guesses(w: Workload, target: Target) -> Iterator[Resolution]:
    for schedule in defaults.defaults(w, target.backend):
        yield Resolution(schedule, "default")
    for schedule in (defaults.untuned(w), *defaults.heuristic(w, target.backend)):
        yield Resolution(schedule, "untuned")
