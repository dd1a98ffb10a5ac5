"""The hand-chosen schedules of the ops that rotate and store."""

from __future__ import annotations

from collections.abc import Mapping

from db.records import Opt, Schedule, Workload
from kernels import backends
from kernels.ops.op import Variant
from kernels.ops.rope.spec import MlaCacheStore, RopeCacheStore


def rope_cache_store(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """On a GPU a thread computes a column, and loads several terms of a norm's sum (loop 3) at a time. On a CPU this
    launch takes next to no time, so that it has no opts. The last schedule applies everywhere."""
    norm = w.op == MlaCacheStore.op or RopeCacheStore.from_workload(w).eps is not None
    unroll = (Opt("UNROLL", None, 4, "3"),) if norm else ()
    sizes = (128, 64, 32, 16) if backends.find(device).threads else ()
    found = [Schedule("plain", (), (*more, Opt("LOCAL", None, size, "2"))) for more in (unroll, ()) for size in sizes]
    return tuple(dict.fromkeys([*found, Schedule("plain", (), unroll), Schedule("plain", (), ())]))


def mla_cache_store(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """Where there is local memory, 8 threads share the sum of a norm's squares, for a few columns (measured on an
    H100)."""
    group = Opt("GROUP", None, 8, "3"), Opt("LOCAL", None, 4, "2"), Opt("UPCAST", None, 4, "2")
    found = (Schedule("plain", (), group),) if backends.find(device).local_memory_nbytes else ()
    return (*found, *rope_cache_store(w, variants, device))
