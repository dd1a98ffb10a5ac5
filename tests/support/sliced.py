"""Schedules whose loops are cut into slices, which the threads of a CPU share out among themselves."""

from __future__ import annotations

from dataclasses import replace

from db.lookup import Lookup
from db.records import Opt, Schedule, Served, Target, Workload
from kernels.serve import defaults, sink
from support.kernel_runs import device

SLICES = 16, 12, 8, 6, 4


def sliced(w: Workload) -> Schedule | None:
    """The first default with its outer loop cut into the most of SLICES; None if it can be cut into none."""
    default = defaults.defaults(w, device().name)[0]
    for slices in SLICES:
        found = replace(default, opts=(*(default.opts or ()), Opt("THREAD", 0, slices)))
        if sink.can_build(w, found, device().name, device().renderer):
            return found
    return None


class SlicedLookup(Lookup):
    """A store that has `sliced` of each linear."""

    def exact(self, workload: Workload, target: Target, kernel_digest: str) -> Served | None:
        found = sliced(workload) if "linear" in workload.op else None
        return None if found is None else Served(workload, target, found, 0.0, "user")

    def found_wrong(self, workload: Workload, target: Target, kernel_digest: str) -> frozenset[str]:
        return frozenset()
