"""Claim: each row of the packaged store is faster on its device than the default that would be served without it.

    python -m bench.packaged_gain db/rows/*.json

Measures the packed schedule of each workload of this device in turn with the op's default. Prints a table, then one
JSON line.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict

from autotune.pack import pack
from autotune.render import schedule_name, workload_name
from autotune.trial.compiler import CompilePool
from autotune.trial.runner import Runner
from bench import options
from bench.packaged_rows import Asked, compared, described, mean, mine, shown
from kernels import devices
from kernels.serve.sink import default


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("results", nargs="+", help="files of `autotune export`, or stores")
    parser.add_argument("--seconds", type=float, default=140.0, help="for all of it")
    args = parser.parse_args()
    choice = devices.choose_device()
    devices.activate(choice)
    packed, deadline = pack(args.results), time.monotonic() + args.seconds
    with Runner(choice) as runner, CompilePool(runner.describe().renderer) as pool:
        info = runner.describe()
        every = mine(packed, info.target)
        asked = (
            Asked(m.workload, "packaged", {"default": chosen, "packaged": m.schedule})
            for m in every
            if (chosen := default(m.workload, info.renderer)) is not None
        )
        rows = []
        print(f"{'workload':<46}{'default µs':>12}{'packaged µs':>12}{'gain':>7}  schedule")
        for a, times in compared(runner, pool, asked, deadline):
            gain = times["default"] / times["packaged"]
            rows.append({**described(a), **times, "gain": gain})
            both = f"{shown(times['default']):>12}{shown(times['packaged']):>12}{gain:>7.2f}"
            print(f"{workload_name(a.workload):<46}{both}  {schedule_name(a.schedules['packaged'])}")
    ops = {op: mean([r["gain"] for r in rows if r["op"] == op]) for op in sorted({r["op"] for r in rows})}
    total = mean([r["gain"] for r in rows])
    print(f"default / packaged: geometric mean {total:.3f} over {len(rows)} of {len(every)} rows; by op {ops}")
    report = {"bench": "packaged_gain", "target": asdict(info.target), "versions": dict(info.versions)}
    print(json.dumps({**report, "gain": total, "ops": ops, "rows": rows}))


if __name__ == "__main__":
    main()
