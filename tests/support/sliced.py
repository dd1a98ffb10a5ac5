"""Schedules whose loops are cut into slices, which the threads of a CPU share out among themselves."""

from __future__ import annotations

from dataclasses import replace

from db.lookup import Lookup
from db.records import Opt, Schedule, Served, Target, Workload
from kernels.serve import defaults, sink
from support.kernel_runs import device

SLICES = 7, 6, 4, 3, 2


def sliced(w: Workload) -> Schedule | None:
    """The first default with the most of SLICES that one of its loops can be cut into; None if none can."""
    ren = device().renderer
    for default in defaults.defaults(w, device().name):
        for slices in SLICES:
            for axis in range(3):
                opts = (*(default.opts or ()), Opt("THREAD", axis, slices))
                if sink.can_build(w, found := replace(default, opts=opts), device().name, ren):
                    return found
    return None


class SlicedLookup(Lookup):
    """A store that has `sliced` of each workload."""

    def exact(self, workload: Workload, target: Target, kernel_digest: str) -> Served | None:
        found = sliced(workload)
        return None if found is None else Served(workload, target, found, 0.0, "user")

    def found_wrong(self, workload: Workload, target: Target, kernel_digest: str) -> frozenset[str]:
        return frozenset()
