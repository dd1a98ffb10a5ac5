"""The hand-chosen schedules of the ops that rotate and store."""

from __future__ import annotations

from db.records import Opt, Schedule
from kernels import backends


def rope_cache_store(device: str, norm: bool) -> tuple[Schedule, ...]:
    """The default schedules, best first. norm: whether the kernel has loop 3, the sum of a norm.

    On a GPU a thread computes a column, and loads several terms of a norm's sum at a time. On a CPU this launch takes
    next to no time, so that it has no opts. The last schedule applies everywhere.
    """
    unroll = (Opt("UNROLL", None, 4, "3"),) if norm else ()
    sizes = (128, 64, 32, 16) if backends.find(device).threads else ()
    found = [Schedule("plain", (), (*more, Opt("LOCAL", None, size, "2"))) for more in (unroll, ()) for size in sizes]
    return tuple(dict.fromkeys([*found, Schedule("plain", (), unroll), Schedule("plain", (), ())]))


def mla_cache_store(device: str) -> tuple[Schedule, ...]:
    """The default schedules, best first. Where there is local memory, 8 threads share the sum of a norm's squares, for
    a few columns (measured on an H100)."""
    group = Opt("GROUP", None, 8, "3"), Opt("LOCAL", None, 4, "2"), Opt("UPCAST", None, 4, "2")
    found = (Schedule("plain", (), group),) if backends.find(device).local_memory_nbytes else ()
    return (*found, *rope_cache_store(device, True))
