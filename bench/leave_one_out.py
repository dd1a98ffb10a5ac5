"""Claim: for a shape that has no row, the nearest row and the rules are faster than our default.

    python -m bench.leave_one_out db/rows/*.json

Leaves out each packed workload of this device in turn: the nearest row, else the rule computed from the others, else
the default serves it. What serves is measured in turn with the default and with the workload's own winner. Prints a
table, then one JSON line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from autotune.pack import pack
from autotune.render import schedule_name, workload_name
from autotune.trial.compiler import CompilePool
from autotune.trial.runner import Runner
from bench import options
from bench.packaged_rows import Asked, compared, described, mean, mine, predicted, shown
from kernels import devices
from kernels.serve.sink import default


def table(rows: Sequence[dict[str, Any]]) -> str:
    heads = f"{'step':>9}{'default µs':>12}{'served':>10}{'tuned':>10}{'gain':>7}{'of tuned':>9}"
    lines = [f"{'workload':<46}{heads}  served"]
    for r in rows:
        times = "".join(f"{shown(r[name]):>{n}}" for name, n in (("default", 12), ("predicted", 10), ("tuned", 10)))
        share = r["tuned"] / r["predicted"]
        lines.append(f"{r['name']:<46}{r['step']:>9}{times}{r['gain']:>7.2f}{share:>9.2f}  {r['schedule']}")
    return "\n".join(lines)


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("results", nargs="+", help="files of `autotune export`, or stores")
    parser.add_argument("--seconds", type=float, default=140.0, help="for all of it")
    parser.add_argument("--op", help="only workloads of this op")
    args = parser.parse_args()
    choice = devices.choose_device()
    devices.activate(choice)
    packed, deadline = pack(args.results), time.monotonic() + args.seconds
    with Runner(choice) as runner, CompilePool(runner.describe().renderer) as pool:
        info = runner.describe()
        every = mine(packed, info.target, args.op)
        asked = (
            Asked(m.workload, found.step, {"default": chosen, "predicted": found.schedule, "tuned": m.schedule})
            for m, found in predicted(packed, every, info.target, info.renderer)
            if (chosen := default(m.workload, info.renderer)) is not None
        )
        rows = []
        for a, times in compared(runner, pool, asked, deadline):
            about = {"name": workload_name(a.workload), "schedule": schedule_name(a.schedules["predicted"])}
            rows.append({**described(a), **about, **times, "gain": times["default"] / times["predicted"]})
    print(table(rows))
    ops = {op: mean([r["gain"] for r in rows if r["op"] == op]) for op in sorted({r["op"] for r in rows})}
    steps = {s: mean([r["gain"] for r in rows if r["step"] == s]) for s in sorted({r["step"] for r in rows})}
    worst = min(rows, key=lambda r: r["gain"], default=None)
    total = mean([r["gain"] for r in rows])
    kept = mean([r["tuned"] / r["predicted"] for r in rows])
    print(f"default / served: geometric mean {total:.3f} over {len(rows)} of {len(every)} workloads; by op {ops}")
    print(f"by step {steps}; {kept:.3f} of the tuned speed; worst {worst and (worst['name'], worst['gain'])}")
    report = {"bench": "leave_one_out", "target": asdict(info.target), "versions": dict(info.versions)}
    summary = {"gain": total, "ops": ops, "steps": steps, "of_tuned": kept, "worst": worst, "asked": len(every)}
    print(json.dumps({**report, **summary, "rows": rows}))


if __name__ == "__main__":
    main()
