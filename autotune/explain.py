"""Finds the lookup step that serves each kernel of a model on a target, in the same way as `kernels.resolve`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.session import missing_kernel
from autotune.stale import Stored
from autotune.workloads import ModelPlan, ModelWorkload
from db.lookup import Lookup
from db.records import Target
from db.store import Winner
from kernels.serve.resolution import STEPS, Resolution
from kernels.serve.server import Server

NO_KERNEL = "no kernel"


@dataclass(frozen=True)
class Explained:
    """How one kernel is served. reason: why there is no such kernel, if resolution is None. stale: the store has only
    schedules that were accepted for other versions of the kernel. why_stale: what changed since what is stored was
    accepted, if `autotune retune` should replay it."""

    model: ModelWorkload
    resolution: Resolution | None
    stale: bool = False
    why_stale: str = ""
    reason: str = ""

    @property
    def step(self) -> str:
        return NO_KERNEL if self.resolution is None else self.resolution.step


def explain(
    plan: ModelPlan,
    target: Target,
    lookup: Lookup,
    mode: str,
    winners: Sequence[Winner] = (),
    versions: Mapping[str, str] | None = None,
) -> tuple[Explained, ...]:
    """Explains each kernel, in the plan's order. mode: of AUTOTUNE_LOOKUP. winners: of the user store, to find stale
    ones. versions: of tinygrad and the driver now.
    """
    server = Server(lookup, mode)
    stored = Stored(winners, target, versions)
    found = []
    for mw in plan.workloads:
        w = mw.workload
        if reason := missing_kernel(w):
            found.append(Explained(mw, None, reason=reason))
            continue
        found.append(Explained(mw, server.resolve(w, target), stored.is_stale(w), stored.why(w)))
    return tuple(found)


def coverage(rows: Sequence[Explained], m: int) -> dict[str, float]:
    """Lookup step -> the share of the weight bytes of a pass over m tokens that it serves. Empty shares are left
    out."""
    nbytes: dict[str, int] = dict.fromkeys((*STEPS, NO_KERNEL), 0)
    for row in rows:
        if row.model.workload.m == m:
            nbytes[row.step] += row.model.count * row.model.nbytes
    total = sum(nbytes.values())
    return {step: n / total for step, n in nbytes.items() if n}
