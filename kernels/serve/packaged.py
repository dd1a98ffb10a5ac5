"""What serves a workload where nothing was tuned: the packaged store alone, as a sweep's baselines need it."""

from __future__ import annotations

import functools

from db.lookup import Lookup
from db.paths import PACKAGED
from db.records import Schedule, Served, Target, Workload
from kernels.ops.registry import kernel_digest
from kernels.ops.tolerance import tolerance
from kernels.serve.resolution import Resolution, look_up
from kernels.serve.sink import buildable, default
from kernels.tinygrad.renderers import Renderer


def packaged(w: Workload, target: Target, ren: Renderer) -> Schedule | None:
    """What the packaged store has for a workload on a target, a row or a rule; None if it has nothing."""
    found = _resolved(w, target, ren)
    return None if found.step in ("default", "untuned") else found.schedule


def untuned(w: Workload, target: Target, ren: Renderer) -> tuple[Schedule, ...]:
    """What would be served to a user who never tuned: what the packaged store has, and our default; without what there
    is not."""
    found = _resolved(w, target, ren)
    if found.step in ("default", "untuned"):
        return (found.schedule,) if found.step == "default" else ()
    chosen = default(w, ren)
    return tuple(dict.fromkeys([found.schedule, *([chosen] if chosen else [])]))


def shipped(w: Workload, target: Target) -> Served | None:
    """What the packaged store has for this very workload, device and kernel source."""
    return _lookup().exact(w, target, kernel_digest(w))


def _resolved(w: Workload, target: Target, ren: Renderer) -> Resolution:
    return look_up(w, target, _lookup(), "on", buildable(ren))


@functools.cache
def _lookup() -> Lookup:
    """The packaged store in the place of the user's, so that nothing of the user's counts."""
    return Lookup(user=PACKAGED, limit=tolerance)
