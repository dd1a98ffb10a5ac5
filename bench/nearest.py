"""Claim: for a workload that was never tuned, the schedule of the nearest tuned shape beats our hand-chosen default.

    python -m bench.nearest --db store.sqlite

Leaves out each tuned workload of the store in turn, and measures the schedule of its nearest neighbour, the default and
its own winner in turn. The result decides step 4 of the lookup order (`kernels.serve.resolution`) and the largest
useful distance (`kernels.serve.resolution.NEAR`). Prints a table, then one JSON line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from autotune.trial import statistics
from autotune.trial.compiler import CompilePool, Job
from autotune.trial.pipeline import BASELINE_SECONDS, BASELINE_UOPS
from autotune.trial.runner import Runner
from bench import options
from db.codec import schedule_to_json
from db.queries import distance
from db.records import Measurement, Schedule
from db.store import Store
from kernels import devices
from kernels.ops.registry import backend, kernel_digest
from kernels.serve.defaults import defaults
from kernels.serve.resolution import NEAR
from kernels.serve.sink import build
from kernels.tinygrad.schedule import ScheduleError

ROUNDS = 24


def legal(winner: Measurement, schedules: Sequence[Schedule], ren: Any) -> Schedule | None:
    """The first of `schedules` that applies to the winner's workload."""
    for schedule in schedules:
        try:
            build(winner.workload, schedule, ren)
        except ScheduleError:
            continue
        return schedule
    return None


def leave_out(store: Store, runner: Runner, pool: CompilePool, winner: Measurement) -> dict[str, Any] | None:
    """Median seconds of the tuned, nearest and default schedules for one workload. None if it has no neighbour."""
    info, w = runner.describe(), winner.workload
    near = store.neighbours(w, info.target, winner.kernel_digest, 1)
    if not near:
        return None
    choices = {
        "tuned": winner.schedule,
        "nearest": legal(winner, [near[0].schedule], info.renderer),
        "default": legal(winner, defaults(w, backend(info.renderer)), info.renderer),
    }
    runner.prepare(w)
    distinct = list(dict.fromkeys(s for s in choices.values() if s is not None))
    programs = {
        c.key: c.program
        for c in pool.compile([Job(s, w, s, BASELINE_UOPS, BASELINE_SECONDS) for s in distinct])
        if c.program is not None
    }
    timings = runner.compare(list(programs.values()), ROUNDS)
    seconds = {s: statistics.median(t.samples) for s, t in zip(programs, timings, strict=True) if t.samples}
    return {
        **asdict(w),
        "from": f"{near[0].workload.n}x{near[0].workload.k}",
        "distance": distance(near[0].workload, w),
        "nearest_schedule": schedule_to_json(near[0].schedule),
        **{f"{name}_seconds": seconds.get(s) for name, s in choices.items()},
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    heads = f"{'neighbour':>14}{'times':>7}{'tuned µs':>10}{'nearest':>10}{'default':>10}"
    lines = [f"{'workload':<22}{heads}  of tuned speed"]
    for r in rows:
        names = [r[f"{name}_seconds"] for name in ("tuned", "nearest", "default")]
        shown = "".join(f"{1e6 * s:>10.1f}" if s else f"{'illegal':>10}" for s in names)
        shares = " ".join(f"{names[0] / s:.2f}" if s and names[0] else "-" for s in names[1:])
        title = f"{r['format']} {r['n']}x{r['k']}"
        lines.append(f"{title:<22}{r['from']:>14}{math.exp(r['distance']):7.2f}{shown}  {shares}")
    return "\n".join(lines)


def gain(rows: Sequence[dict[str, Any]]) -> float:
    """The geometric mean of default seconds / nearest seconds, where the nearest schedule is legal."""
    logs = [
        math.log(r["default_seconds"] / r["nearest_seconds"])
        for r in rows
        if r["nearest_seconds"] and r["default_seconds"]
    ]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--db", required=True, help="a store with a sweep of this device")
    args = parser.parse_args()
    choice = devices.choose_device()
    devices.activate(choice)
    store = Store.open(args.db)
    with Runner(choice) as runner, CompilePool(runner.describe().renderer) as pool:
        info = runner.describe()
        finals = [w.row.measurement for w in store.finals(info.target)]
        current = [m for m in finals if m.kernel_digest == kernel_digest(m.workload)]
        rows = [row for m in current if (row := leave_out(store, runner, pool, m))]
    report = {"bench": "nearest", "target": asdict(info.target), "versions": dict(info.versions), "clock": info.clock}
    print(table(rows))
    near, far = ([r for r in rows if (r["distance"] <= NEAR) is inside] for inside in (True, False))
    for name, some in (("near enough to be served", near), ("farther", far)):
        print(f"{name}: geometric mean of default / nearest {gain(some):.3f} over {len(some)} workloads")
    print(json.dumps({**report, "rows": rows, "near_default_over_nearest": gain(near), "far": gain(far)}))


if __name__ == "__main__":
    main()
