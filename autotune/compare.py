"""Two sets of results beside each other: stores, exports, or runs of a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autotune import transfer
from autotune.workloads import ModelPlan
from db.errors import AutotuneError
from db.payload import parse
from db.records import Target, Workload
from db.store import Store, Winner


class CompareError(AutotuneError, ValueError):
    """What was named holds no results, or those of several targets."""


@dataclass(frozen=True)
class Pair:
    """A workload that both sides have. calls: launches of a pass, if a model is given."""

    workload: Workload
    a: Winner
    b: Winner
    calls: int | None = None

    @property
    def a_seconds(self) -> float:
        return self.a.row.median_seconds

    @property
    def b_seconds(self) -> float:
        return self.b.row.median_seconds

    @property
    def ratio(self) -> float:
        return self.a_seconds / self.b_seconds


@dataclass(frozen=True)
class Total:
    """Of a pass over m tokens of a model: the sums over its launches. lacking: launches that one side knows no time
    of."""

    m: int
    a_seconds: float
    b_seconds: float
    lacking: int

    @property
    def ratio(self) -> float | None:
        return self.a_seconds / self.b_seconds if self.b_seconds else None


@dataclass(frozen=True)
class Comparison:
    """a, b: what is compared, in words. only_a, only_b: how many workloads only one side has."""

    a: str
    b: str
    pairs: tuple[Pair, ...]
    totals: tuple[Total, ...]
    only_a: int
    only_b: int


def results(name: str, store: Store) -> tuple[Winner, ...]:
    """What a file serves, which is a store or an export; or, if there is no such file, what runs of `store` accepted,
    named by the beginnings of their ids, as in `5f0c,81d2`.

    Raises CompareError, StoreError, ExchangeError, FileError.
    """
    if not os.path.exists(name):
        try:
            runs = [store.run_of(prefix) for prefix in name.split(",")]
        except AutotuneError as e:
            raise CompareError(f"{name!r} is no file, and {e}") from e
        return tuple(w for run in runs for w in store.accepted(run.run.id))
    if transfer.is_sqlite(name):
        return Store.read(name).finals()
    return transfer.winners(parse(transfer.read(name, lambda most: "")))


def compare(
    a: tuple[str, Sequence[Winner]],
    b: tuple[str, Sequence[Winner]],
    target: str | None = None,
    plan_for: Callable[[str], ModelPlan] | None = None,
) -> Comparison:
    """Compares two named sets of results. target: part of the name of the target that both are of, or one of each.
    plan_for: of a model on a backend; then only its launches are compared, and their sums. Raises CompareError."""
    (one, of_a, backend), (two, of_b, _) = (_newest(*side, target) for side in (a, b))
    plan = plan_for(backend) if plan_for else None
    known = {mw.workload: mw.count for mw in plan.workloads} if plan else None
    both = [w for w in of_a if w in of_b and (known is None or w in known)]
    pairs = tuple(Pair(w, of_a[w], of_b[w], None if known is None else known[w]) for w in both)
    asked = known if known is not None else {**of_a, **of_b}
    only_a, only_b = (sum(w in mine and w not in other for w in asked) for mine, other in ((of_a, of_b), (of_b, of_a)))
    return Comparison(one, two, pairs, _totals(pairs, plan) if plan else (), only_a, only_b)


def _newest(name: str, winners: Sequence[Winner], target: str | None) -> tuple[str, dict[Workload, Winner], str]:
    """In words what a side is, its newest result of each workload, and its backend."""
    fitting = [w for w in winners if target is None or target.lower() in str(w.row.measurement.target).lower()]
    targets: set[Target] = {w.row.measurement.target for w in fitting}
    if len(targets) != 1:
        known = "; ".join(sorted(str(t) for t in targets or {w.row.measurement.target for w in winners}))
        raise CompareError(
            f"{name}: choose one target with --target; there are {known}"
            if known
            else f"{name}: no results in it; `autotune list --runs` shows which runs accepted some"
        )
    ordered = sorted(fitting, key=lambda w: w.row.created_at)
    (found,) = targets
    return f"{name}, {found}", {w.row.measurement.workload: w for w in ordered}, found.backend


def _totals(pairs: Sequence[Pair], plan: ModelPlan) -> tuple[Total, ...]:
    found = {pair.workload: pair for pair in pairs}
    totals = []
    for m in sorted({pair.workload.m for pair in pairs}):
        launched = [mw for mw in plan.workloads if mw.workload.m == m and mw.count]
        there = [(mw.count, found[mw.workload]) for mw in launched if mw.workload in found]
        a = sum(count * pair.a_seconds for count, pair in there)
        b = sum(count * pair.b_seconds for count, pair in there)
        lacking = sum(mw.count for mw in launched if mw.workload not in found)
        totals.append(Total(m, a, b, lacking))
    return tuple(totals)
