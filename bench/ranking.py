"""Claim: with timings of other workloads, a search compiles fewer schedules until one is within 3 % of the fastest.

    python -m bench.ranking store.sqlite
    python -m bench.ranking store.sqlite --op linear --least 40

Reads the timings of a store's target; needs no device. Leaves out each workload in turn: a ranking is learnt from the
others, and the workload's timed schedules are put in its order. Beside it are the expected count in random order, and
the order in which the search timed them. A workload counts if at least --least of its schedules were timed. Prints a
table, then one JSON line.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import asdict
from typing import Any

import numpy as np

from autotune.render import workload_name
from autotune.search.ranking import Ranking
from bench import options
from db.records import Schedule, Target, Workload
from db.rows import Timing
from db.store import Store
from kernels.ops.registry import OPS

NEAR = 1.03
EVERY = 1_000_000


def timings(store: Store, target: Target, op: str) -> dict[Workload, dict[Schedule, float]]:
    """The fastest time of each schedule, in the order in which they were first timed."""
    found: dict[Workload, dict[Schedule, float]] = defaultdict(dict)
    for workload, schedule, seconds in reversed(store.target_timings(target, op, EVERY)):
        found[workload][schedule] = min(seconds, found[workload].get(schedule, math.inf))
    return found


def until_near(seconds: np.ndarray[Any, Any], order: np.ndarray[Any, Any]) -> int:
    """How many are tried in this order until one is near the fastest."""
    return 1 + int(np.argmax(seconds[order] <= NEAR * seconds.min()))


def row(w: Workload, timed: dict[Schedule, float], others: list[Timing]) -> dict[str, Any] | None:
    expected = Ranking.fit(others).of(w)
    if expected is None:
        return None
    seconds = np.array(list(timed.values()))
    near = int((seconds <= NEAR * seconds.min()).sum())
    return {
        "workload": workload_name(w),
        "op": w.op,
        "schedules": len(timed),
        "ranked": until_near(seconds, np.argsort(expected(list(timed)), kind="stable")),
        "searched": until_near(seconds, np.arange(len(timed))),
        "random": (len(timed) + 1) / (near + 1),
    }


def mean(rows: list[dict[str, Any]], name: str) -> float:
    return math.exp(sum(math.log(r[name]) for r in rows) / len(rows)) if rows else math.nan


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("store")
    parser.add_argument("--target", default="", help="of the target whose name contains this")
    parser.add_argument("--op", choices=sorted(OPS), help="only workloads of this op")
    parser.add_argument("--least", type=int, default=12, help="timed schedules that a workload must have")
    args = parser.parse_args()
    store = Store.read(args.store)
    targets = {w.row.measurement.target for w in store.finals() if args.target in str(w.row.measurement.target)}
    if len(targets) != 1:
        parser.error(f"--target: {len(targets)} targets of the store match {args.target!r}; one is needed")
    (target,) = targets
    rows = []
    for op in [args.op] if args.op else sorted(OPS):
        found = timings(store, target, op)
        for w, timed in found.items():
            others = [(o, s, seconds) for o, of in found.items() if o != w for s, seconds in of.items()]
            if len(timed) >= args.least and (made := row(w, timed, others)):
                rows.append(made)
    names = ("ranked", "searched", "random")
    print(f"{'workload':<52}{'timed':>6}" + "".join(f"{name:>10}" for name in names))
    for r in rows:
        print(f"{r['workload']:<52}{r['schedules']:>6}" + "".join(f"{r[name]:>10.1f}" for name in names))
    means = {name: mean(rows, name) for name in names}
    print(f"geometric mean over {len(rows)} workloads: " + ", ".join(f"{n} {value:.2f}" for n, value in means.items()))
    print(json.dumps({"bench": "ranking", "target": asdict(target), "near": NEAR, "means": means, "rows": rows}))


if __name__ == "__main__":
    main()
