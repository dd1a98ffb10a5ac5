"""The hand-chosen schedules of `argmax`."""

from __future__ import annotations

from collections.abc import Mapping

from db.records import Schedule, Workload
from kernels.ops.kit.nearest import nearest
from kernels.ops.op import Variant


def argmax(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """On a GPU one workgroup reads a whole vocabulary, with enough threads to keep its loads under way. On a CPU many
    maxima side by side fill the vector registers. The last schedule applies everywhere.
    """
    params = variants["team"].params(w) if "team" in variants else ()
    found = [Schedule("team", nearest(params, threads=threads, words=1), ()) for threads in (512, 256) if params]
    widest = variants["plain"].params(w)[0]
    return (*found, Schedule("plain", tuple(widest.items()), ()))
