"""The hand-chosen schedules of `expert_sum`, `expert_places` and `expert_tiles`."""

from __future__ import annotations

from collections.abc import Mapping

from db.records import Opt, Schedule, Workload
from kernels import backends
from kernels.ops.op import Variant


def expert_sum(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """A thread takes 4 neighbouring columns of a token, and the threads of a
    workgroup are side by side. The last schedule has no opts and applies everywhere."""
    threads = (64, 32, 16, 8) if backends.find(device).threads else ()
    opts = [(Opt("UPCAST", None, 4, "1"), Opt("LOCAL", None, size, "1")) for size in threads]
    return tuple(Schedule("plain", (), found) for found in (*opts, (Opt("UPCAST", None, 4, "1"),), ()))


def sorting(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """On a GPU the threads of a workgroup share out the pairs, for 4 results. The
    last schedule has no opts and applies everywhere."""
    groups = (32, 16, 8) if backends.find(device).threads else ()
    opts = [(Opt("UPCAST", None, 4, "0"), Opt("GROUP", None, threads, "1")) for threads in groups]
    return tuple(Schedule("plain", (), found) for found in (*opts, ()))
