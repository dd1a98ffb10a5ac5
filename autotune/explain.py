"""Which lookup step serves each kernel of a model on a target, as `kernels.resolve` would have it. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.session import missing_kernel
from autotune.workloads import ModelPlan, ModelWorkload
from db.lookup import Lookup
from db.records import Target, Workload
from db.store import Winner
from kernels.ops.registry import kernel_digest
from kernels.serve.resolution import STEPS, Resolution
from kernels.serve.server import Server

NO_KERNEL = "no kernel"


@dataclass(frozen=True)
class Explained:
    """One kernel: what serves it, or why there is none (`reason`). `stale`: the store has a schedule that was accepted
    for another version of the kernel's source; `autotune verify` replays it."""

    model: ModelWorkload
    resolution: Resolution | None
    stale: bool = False
    reason: str = ""

    @property
    def step(self) -> str:
        return NO_KERNEL if self.resolution is None else self.resolution.step


class Stored:
    """The user store's winners on one target."""

    def __init__(self, winners: Sequence[Winner], target: Target) -> None:
        self._digests: dict[Workload, set[str]] = {}
        for m in (w.row.measurement for w in winners):
            if m.target == target:
                self._digests.setdefault(m.workload, set()).add(m.kernel_digest)

    def is_stale(self, w: Workload) -> bool:
        """True if what was accepted for a workload was so for other versions of its kernel's source only."""
        digests = self._digests.get(w, set())
        return bool(digests) and kernel_digest(w) not in digests


def explain(
    plan: ModelPlan, target: Target, lookup: Lookup, mode: str, winners: Sequence[Winner] = ()
) -> tuple[Explained, ...]:
    """In the plan's order. `mode` is AUTOTUNE_LOOKUP's; `winners` are the user store's, to find stale ones among."""
    server = Server(lookup, mode)
    stored = Stored(winners, target)
    found = []
    for mw in plan.workloads:
        w = mw.workload
        if reason := missing_kernel(w):
            found.append(Explained(mw, None, reason=reason))
            continue
        found.append(Explained(mw, server.resolve(w, target), stored.is_stale(w)))
    return tuple(found)


def coverage(rows: Sequence[Explained], m: int) -> dict[str, float]:
    """Step -> its share of the weight bytes that one pass over m tokens reads, for the steps that serve any."""
    nbytes: dict[str, int] = dict.fromkeys((*STEPS, NO_KERNEL), 0)
    for row in rows:
        if row.model.workload.m == m:
            nbytes[row.step] += row.model.count * row.model.nbytes
    total = sum(nbytes.values())
    return {step: n / total for step, n in nbytes.items() if n}
