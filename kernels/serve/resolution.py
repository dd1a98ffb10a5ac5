"""Workload -> Schedule: the lookup order. A miss never searches. No step serves what was found wrong on this target.

1 user        the user's store: this workload, target and kernel source
2 packaged    the same from the store that travels in the package
3 same_arch   the same, tuned on another device of this backend and arch, or with another number of threads, or on
              such a device by a backend that launches the same kernels (`Backend.kin`: CUDA's serve NV)
4 nearest     the nearest shape of this op and format, within NEAR, if its opts apply here; or, where no rule was
              measured, at any distance
5 rule        what was fastest over the shapes of its class; where nothing was measured, what was reasoned
6 default     the op's hand-chosen schedule for the backend
7 untuned     tinygrad's heuristic

Steps 4 and 5 are left out on backends whose defaults follow what was measured shape by shape (`Backend.fitted`): with
one workload left out of an H200's at a time, the nearest row had 0.90 and a rule 0.87 times the speed of our default.

Steps 3 and 4 pass over what a host was tuned to with at most half as many threads as there are: its loops may have too
few slices for these, and our defaults have enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log

from db.codec import schedule_digest
from db.lookup import Lookup
from db.records import Schedule, Served, Target, Workload
from db.rules import Rule
from kernels import backends
from kernels.ops.registry import kernel_digest
from kernels.serve import defaults
from kernels.serve.rules import rules, schedules

STEPS = ("user", "packaged", "same_arch", "nearest", "rule", "default", "untuned")
NEAR = log(1.5)
"""How far another shape may be (`db.queries.distance`) for its schedule to be a better guess than a rule."""

Applies = Callable[[Workload, Schedule], bool]
"""Whether a schedule can be built for a workload on the target that is asked about."""


@dataclass(frozen=True)
class Resolution:
    """The schedule that serves a workload, the step of STEPS that gave it, and the stored row or the rule behind it, if
    there is one."""

    schedule: Schedule
    step: str
    served: Served | None = None
    rule: Rule | None = None


def look_up(w: Workload, target: Target, lookup: Lookup, mode: str, applies: Applies) -> Resolution:
    """The first step that has an answer, in a mode of AUTOTUNE_LOOKUP. What was tuned for this very workload and
    target is not checked with `applies` here. If every schedule was found wrong on the target, this is the untuned one,
    which `Server.serve` then refuses.

    Raises KernelError or FormatError for a workload that these kernels do not have.
    """
    served = None if mode == "off" else lookup.exact(w, target, kernel_digest(w))
    if served:
        return Resolution(served.schedule, served.origin, served)
    wrong = _found_wrong(w, target, lookup, mode)
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
    """Guesses from what was measured elsewhere, best first. Each store is asked only if it comes to that."""
    digest, here = kernel_digest(w), backends.find(target.backend)
    least = target.compute_units // 2 + 1 if here.host else 0
    if served := lookup.same_arch(w, target, digest, least):
        yield Resolution(served.schedule, "same_arch", served)
    if here.kin:
        twin = replace(target, backend=here.kin)
        if served := lookup.exact(w, twin, digest) or lookup.same_arch(w, twin, digest):
            yield Resolution(served.schedule, "same_arch", served)
    if here.fitted:
        return
    if served := lookup.nearest(w, target, digest, NEAR, least):
        yield Resolution(served.schedule, "nearest", served)
    there = rules(w, target, lookup)
    yield from _ruled([rule for rule in there if not rule.reasoned], w, target)
    if all(rule.reasoned for rule in there) and (served := lookup.nearest(w, target, digest, least_units=least)):
        yield Resolution(served.schedule, "nearest", served)
    yield from _ruled([rule for rule in there if rule.reasoned], w, target)


def _ruled(there: Sequence[Rule], w: Workload, target: Target) -> Iterator[Resolution]:
    for rule in there:
        for schedule in schedules(rule, w, target.backend):
            yield Resolution(schedule, "rule", rule=rule)


def _guesses(w: Workload, target: Target) -> Iterator[Resolution]:
    for schedule in defaults.defaults(w, target.backend):
        yield Resolution(schedule, "default")
    for schedule in (defaults.untuned(w), *defaults.heuristic(w, target.backend)):
        yield Resolution(schedule, "untuned")
