"""The hand-chosen schedules of attention and of its caches on a host's processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from db.records import Schedule, Workload
from kernels.ops.attention.spec import Flash
from kernels.ops.kit.nearest import nearest
from kernels.ops.op import Params, Variant

ITEMS = 8192  # float32 that a slice of host_combine reads
QUERIES = 6  # that a slice takes at once


def untuned(params: Sequence[Params]) -> tuple[Schedule, ...]:
    """What is left where our default was found wrong: the only variant, with the last of its parameters."""
    return (Schedule("lanes", tuple(sorted(params[-1].items())), ()),)


def attend(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """About 6 queries: as many sums as vector registers hold."""
    s = Flash.from_workload(w)
    wanted = {"heads": QUERIES, "tokens": QUERIES // min(QUERIES, s.heads // s.kv_heads), "lanes": 32, "strip": 32}
    return (Schedule("lanes", nearest(variants["lanes"].params(w), **wanted, block=64), ()),)


def cache_store(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    return (Schedule("lanes", (), ()),)


def combine(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """A slice for each ITEMS items: fewer are not worth a thread's turn."""
    params = nearest(variants["lanes"].params(w), slices=max(1, w.n * w.k // ITEMS))
    return (Schedule("lanes", params, ()),)
