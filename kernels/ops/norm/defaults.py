"""The hand-chosen schedules of `rmsnorm` and `rmsnorm_add`."""

from __future__ import annotations

from collections.abc import Mapping

from db.records import Opt, Schedule, Workload
from kernels import backends
from kernels.ops.kit.nearest import nearest
from kernels.ops.kit.warp import WARP
from kernels.ops.norm.spec import RmsNorm
from kernels.ops.op import Variant


def rmsnorm(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """On a GPU a workgroup normalises a row, with so many threads that each has about 8 columns: a launch this small
    mostly waits. On a CPU 16 sums side by side fill the vector registers. The last schedule has no opts and applies
    everywhere.
    """
    width, found = w.n // RmsNorm.from_workload(w).heads, []
    if "warp" in variants:
        params = nearest(variants["warp"].params(w), warps=max(width // (8 * WARP), 1), words=4)
        found.append(Schedule("warp", params, ()))
    if "team" in variants:
        params = nearest(variants["team"].params(w), threads=min(max(width // 8, 32), 512))
        found.append(Schedule("team", params, ()))
    sums = nearest(variants["plain"].params(w), lanes=1 if backends.find(device).threads else 16)
    upcasts = [Schedule("plain", sums, (Opt("UPCAST", None, columns, "1"),)) for columns in (8, 4)]
    return (*found, *upcasts, Schedule("plain", sums, ()))
