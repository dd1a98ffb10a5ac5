"""Schedules for workloads that nobody has tuned: what an op's author chose, and where tinygrad's heuristic starts."""

from __future__ import annotations

from math import prod

from db.records import Schedule, Workload
from kernels import backends
from kernels.ops import registry


def untuned(w: Workload) -> Schedule:
    """Not tuned: the plain variant under tinygrad's heuristic."""
    return registry.get_op(w).heuristic_baselines(w)[0]


def heuristic(w: Workload, device: str) -> tuple[Schedule, ...]:
    """What tinygrad's heuristic is judged by: each plainly written variant, one accumulator, scheduled by tinygrad."""
    there = registry.variants(w, device)
    return tuple(s for s in registry.get_op(w).heuristic_baselines(w) if s.variant in there)


def defaults(w: Workload, device: str) -> tuple[Schedule, ...]:
    """The hand-chosen schedules of a workload on a backend ("CUDA", "CPU:X86"), best first, each once."""
    there, most = registry.variants(w, device), backends.find(device).threads
    found = registry.get_op(w).default_schedules(w, there, device)
    return tuple(dict.fromkeys(s for s in found if s.variant in there and _threads(s) <= most))


def _threads(schedule: Schedule) -> int:
    """Of a workgroup, as far as amounts of opts say; 0 without opts that make one."""
    amounts = [o.arg for o in schedule.opts or () if o.op in ("LOCAL", "GROUP", "GROUPTOP")]
    return prod(a for a in amounts if isinstance(a, int) and a) if amounts else 0
