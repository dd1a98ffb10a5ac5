"""What serves a workload where nothing was tuned: the packaged store alone, as a sweep's baselines need it."""

from __future__ import annotations

import functools

from db.lookup import Lookup
from db.paths import PACKAGED
from db.records import Schedule, Served, Target, Workload
from kernels.ops.registry import kernel_digest
from kernels.ops.tolerance import tolerance
from kernels.serve.resolution import look_up
from kernels.serve.sink import can_build
from kernels.tinygrad.renderers import Renderer


def packaged(w: Workload, target: Target, ren: Renderer) -> Schedule | None:
    """What the packaged store has for a workload on a target, a row or a rule; None if it has nothing."""
    found = look_up(w, target, _lookup(), "on", lambda w, s: can_build(w, s, target.backend, ren))
    return None if found.step in ("default", "untuned") else found.schedule


def shipped(w: Workload, target: Target) -> Served | None:
    """What the packaged store has for this very workload, device and kernel source."""
    return _lookup().exact(w, target, kernel_digest(w))


@functools.cache
def _lookup() -> Lookup:
    """The packaged store in the place of the user's, so that nothing of the user's counts."""
    return Lookup(user=PACKAGED, limit=tolerance)
