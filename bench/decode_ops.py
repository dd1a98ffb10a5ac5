"""Claim: a decode step of tuned fused kernels takes fewer launches and less time than tinygrad's own lowering of it.

    python -m bench.decode_ops qwen3-8b --budget 8

MODEL is a GGUF or the name of one in tests/data/models. Tunes every op of its decode step into a temporary store on the
device that DEV names, and lets tinygrad lower the same maths written as plain Tensor code (`bench/tinygrad_ops.py`).
Our seconds are of a launch in a chain of cold, dependent launches, on the device's clock. tinygrad's are of a captured
function over many cold copies, by the wall clock. Its launches may overlap, which makes its times too small. Prints a
table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotune.trial.compiler import CompilePool
from autotune.trial.runner import Runner
from autotune.tune import Tuner
from autotune.workloads import ModelWorkload, workloads
from bench import options
from bench.decode_linears import model_path
from bench.own_process import in_own_process
from db.codec import schedule_to_json, workload_from_json, workload_to_json
from db.records import Run, Workload
from db.store import Store
from kernels import devices
from kernels.models.header import read_header
from kernels.ops.registry import nbytes_moved

Row = dict[str, Any]
PART_OF = {"flash_combine": "attention's lowering above"}


def tinygrad_itself(w: Workload, timeout_seconds: float) -> Row:
    """Launches and seconds of tinygrad's lowering, from its own process, or the reason why it failed."""
    return in_own_process("bench.decode_ops", ["--lower", json.dumps(workload_to_json(w))], timeout_seconds)


def bench(args: argparse.Namespace, runner: Runner, folder: Path) -> tuple[list[Row], float]:
    info = runner.describe()
    plan = workloads(read_header(model_path(args.model, folder)), device=info.target.backend)
    store = Store.open(args.db or folder / "bench.sqlite")
    tuned: list[tuple[ModelWorkload, Row]] = []
    start = time.monotonic()
    with CompilePool(info.renderer, args.workers) as pool:
        run = Run(str(uuid.uuid4()), "bench", args.beam, args.budget, info.versions)
        tuner = Tuner(store, runner, pool, run, heuristic=True)
        for mw in plan.workloads:
            result = tuner.tune(mw.workload)
            row = {"seconds": result.seconds, "status": result.status, "reason": result.reason, "tried": result.tried}
            row |= {"heuristic_seconds": result.heuristic_seconds, "default_seconds": result.default_seconds}
            row |= {"schedule": None if result.schedule is None else schedule_to_json(result.schedule)}
            tuned.append((mw, {**workload_to_json(mw.workload), "count": mw.count, **row}))
            print(f"  {mw.workload.op} {mw.workload.format} {result}", file=sys.stderr, flush=True)
    return [{**row, "nbytes": nbytes_moved(mw.workload)} for mw, row in tuned], time.monotonic() - start


def micros(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e6:.1f}"


def table(rows: list[Row]) -> None:
    print(f"{'op':17} {'format':7} {'n x k':>14} {'times':>5} | {'tuned':>8} {'default':>8} {'heur.':>8} {'GB/s':>6} "
          f"| {'tinygrad':>9} {'launches':>8}")  # fmt: skip
    for r in rows:
        stock = r["tinygrad"]
        theirs = PART_OF.get(r["op"]) or stock.get("failed") or f"{micros(stock['seconds']):>9} {stock['launches']:8d}"
        rate = f"{r['nbytes'] / r['seconds'] / 1e9:6.0f}" if r["seconds"] else "     -"
        print(f"{r['op']:17} {r['format']:7} {r['n']:6d} x {r['k']:<5d} {r['count']:5d} | {micros(r['seconds']):>8} "
              f"{micros(r['default_seconds']):>8} {micros(r['heuristic_seconds']):>8} {rate} | {theirs}")  # fmt: skip


def totals(rows: list[Row]) -> Row:
    """Launches and seconds of one token, for ours and for tinygrad's where both are known."""
    both = [r for r in rows if r["seconds"] and ("seconds" in r["tinygrad"] or r["op"] in PART_OF)]
    return {
        "launches": sum(r["count"] for r in rows),
        "seconds": sum(r["count"] * (r["seconds"] or math.nan) for r in rows),
        "compared_seconds": sum(r["count"] * r["seconds"] for r in both),
        "tinygrad_launches": sum(r["count"] * r["tinygrad"].get("launches", 0) for r in both),
        "tinygrad_seconds": sum(r["count"] * r["tinygrad"].get("seconds", 0.0) for r in both),
    }


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("model", nargs="?", default="deepseek-v2-lite")
    options.add_search(parser, 10.0)
    parser.add_argument("--db", help="the store to tune into (default: a temporary one)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for tinygrad to lower and run an op")
    parser.add_argument("--lower", help=argparse.SUPPRESS)
    args = parser.parse_args()
    devices.activate(choice := devices.choose_device())
    if args.lower:
        from bench.tinygrad_ops import lowered

        print(json.dumps(asdict(lowered(workload_from_json(json.loads(args.lower))))))
        return
    with tempfile.TemporaryDirectory() as folder:
        with Runner(choice) as runner:
            info = runner.describe()
            rows, sweep_seconds = bench(args, runner, Path(folder))
        for row in rows:  # our runner has closed the device, so that nothing else uses it
            w = workload_from_json({k: row[k] for k in _WORKLOAD if k in row})
            row["tinygrad"] = {} if w.op in PART_OF else tinygrad_itself(w, args.timeout)
    found = totals(rows)
    table(rows)
    print(f"a token: {found['launches']} launches, {found['seconds'] * 1e3:.2f} ms; where tinygrad's lowering ran: "
          f"{found['compared_seconds'] * 1e3:.2f} ms against its {found['tinygrad_launches']} launches, "
          f"{found['tinygrad_seconds'] * 1e3:.2f} ms; swept in {sweep_seconds:.0f} s")  # fmt: skip
    report = {"bench": "decode_ops", "model": args.model, "target": asdict(info.target), "clock": info.clock}
    print(
        json.dumps({**report, "versions": dict(info.versions), "sweep_seconds": sweep_seconds, **found, "rows": rows})
    )


_WORKLOAD = ("op", "format", "n", "k", "m", "x_dtype", "out_dtype", "epilogue", "extra")

if __name__ == "__main__":
    main()
