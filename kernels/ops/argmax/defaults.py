"""The hand-chosen schedules of `argmax`."""

from __future__ import annotations

from collections.abc import Mapping

from db.records import Schedule, Workload
from kernels.ops.kit.nearest import nearest
from kernels.ops.op import Variant


def default_schedules(w: Workload, variants: Mapping[str, Variant]) -> tuple[Schedule, ...]:
    """The default schedules, best first. variants: those that the backend has parameters for.

    On a GPU one workgroup reads a whole vocabulary, with enough threads to keep its loads under way. On a CPU many
    maxima side by side fill the vector registers. The last schedule applies everywhere.
    """
    found = []
    if team := variants.get("team"):
        for threads in (512, 256):
            found.append(Schedule("team", nearest(team.params(w), threads=threads, words=1), ()))
    widest = variants["plain"].params(w)[0]
    return (*found, Schedule("plain", tuple(widest.items()), ()))
