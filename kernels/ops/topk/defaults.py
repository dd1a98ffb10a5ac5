"""The hand-chosen schedules of `topk`."""

from __future__ import annotations

from collections.abc import Mapping

from db.records import Opt, Schedule, Workload
from kernels.ops.op import Variant


def topk(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """A warp agrees in a few shuffles, without a barrier. Without shuffles a workgroup has a thread for each expert. A
    single thread comes last, since it applies everywhere.
    """
    found = []
    if "warp" in variants:
        warps = max((p["warps"] for p in variants["warp"].params(w) if p["warps"] <= 4), default=1)
        found.append(Schedule("warp", (("warps", warps),), ()))
    if "team" in variants:
        threads = max(p["threads"] for p in variants["team"].params(w) if p["threads"] <= 256)
        found.append(Schedule("team", (("threads", threads),), ()))
        found.append(Schedule("pairs", (), (Opt("GROUPTOP", None, 0, "2"),)))
    return (*found, Schedule("solo", (("threads", 1),), ()))
