"""The hand-chosen schedules of attention and of its caches on a host's processor."""

from __future__ import annotations

from collections.abc import Mapping

from db.records import Schedule, Workload
from kernels.ops.kit.nearest import nearest
from kernels.ops.op import Variant


def attend(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """Few queries need more lanes or wider strips, so that enough sums are under way at a time."""
    params = variants["lanes"].params(w)
    queries = max(p["heads"] * p["tokens"] for p in params)
    few = queries <= 6
    wanted = {"heads": queries, "tokens": queries, "lanes": 32 if few else 16, "strip": 64 if few else 16, "block": 64}
    return (Schedule("lanes", nearest(params, **wanted), ()),)


def cache_store(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    return (Schedule("lanes", (), ()),)
