"""Schedules for workloads that nobody has tuned: what an op's author chose, and where tinygrad's heuristic starts."""

from __future__ import annotations

from db.records import Schedule, Workload
from kernels import registry


def untuned(w: Workload) -> Schedule:
    """Not tuned: the plain variant under tinygrad's heuristic."""
    return registry.get_op(w.op).plain(w)[0]


def heuristic(w: Workload, device: str) -> tuple[Schedule, ...]:
    """What tinygrad's heuristic is judged by: each plainly written variant, one accumulator, scheduled by tinygrad."""
    there = registry.variants(w, device)
    return tuple(s for s in registry.get_op(w.op).plain(w) if s.variant in there)


def defaults(w: Workload, device: str) -> tuple[Schedule, ...]:
    """The hand-chosen schedules of a workload on a backend ("CUDA", "CPU:X86"), best first, each once."""
    there = registry.variants(w, device)
    found = (s for s in registry.get_op(w.op).choices(w, device) if s.variant in there)
    return tuple(dict.fromkeys(found))
