"""How fast the schedule that one workload was tuned to is on another: what a rule for whole classes is computed from.

A sweep times them anyway: neighbours' schedules are among the first that a search tries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from db.codec import schedule_digest
from db.records import Schedule
from db.store import Store, Winner


def cross_times(store: Store, winners: Sequence[Winner]) -> list[Mapping[Schedule, float]]:
    """For each winner, the median seconds of the schedules that won for other workloads of its op and target, or were
    among their baselines, as far as the store has timed them on this one. What it was tuned to itself, and its own
    baselines, are left out."""
    chosen: dict[object, dict[str, Schedule]] = {}
    for w in winners:
        chosen.setdefault(_group(w), {}).update(_own(w))
    return [_timed(store, w, {d: s for d, s in chosen[_group(w)].items() if d not in _own(w)}) for w in winners]


def _timed(store: Store, winner: Winner, wanted: Mapping[str, Schedule]) -> dict[Schedule, float]:
    m = winner.row.measurement
    timings = store.timings(m.workload, m.target, m.kernel_digest) if wanted else {}
    return {wanted[digest]: timings[digest] for digest in sorted(wanted.keys() & timings.keys())}


def _group(winner: Winner) -> object:
    m = winner.row.measurement
    return m.target, m.workload.op


def _own(winner: Winner) -> dict[str, Schedule]:
    schedules = [row.measurement.schedule for row in (winner.row, *winner.baselines)]
    return {schedule_digest(s): s for s in schedules}
