"""Claim: with many tokens, a linear over packed weights should use tensor cores, which tinygrad's heuristic does not.

    python -m bench.prefill_linears --tokens 32 512 --budget 20
    python -m bench.prefill_linears Q4_K:4096:4096 --budget 0

For each FORMAT:N:K, measures three schedules on the device that DEV names: tinygrad's heuristic, our default, and the
result of a search of --budget seconds (0: no search). Each is checked against the float64 reference first. Seconds are
of a launch in a chain of dependent launches over cold weights. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotune.trial.compiler import CompilePool
from autotune.trial.runner import Runner
from autotune.tune import Tuner
from bench import options
from bench.decode_linears import compiled, median
from db.codec import schedule_to_json
from db.records import Run, Schedule, Workload
from db.store import Store
from kernels import devices
from kernels.ops.tolerance import tolerance
from kernels.serve import sink
from kernels.serve.defaults import untuned

Row = dict[str, Any]
SHAPES = ("Q4_K:4096:4096", "Q4_K:14336:4096", "Q6_K:4096:14336", "Q8_0:4096:4096", "F16:4096:4096")
KINDS = ("heuristic", "default", "tuned")


def workloads(args: argparse.Namespace) -> Iterator[Workload]:
    for shape in args.shapes:
        format, n, k = shape.split(":")
        for m in args.tokens:
            yield Workload("linear", format, int(n), int(k), m)


def timed(runner: Runner, pool: CompilePool, w: Workload, schedules: list[Schedule]) -> list[Row]:
    """Seconds, GFLOP/s and error of each schedule, or the reason why it failed."""
    runner.prepare(w)
    rows: list[Row] = []
    for schedule, program in zip(schedules, compiled(pool, w, schedules), strict=True):
        row: Row = {"schedule": schedule_to_json(schedule)}
        rows.append(row)
        if program is None:
            row["failed"] = "does not compile"
            continue
        verdict = runner.validate(program, tolerance(w, schedule.variant))
        samples = runner.chain(program).samples
        if verdict.error is None or not samples:
            row["failed"] = verdict.reason or "no samples"
            continue
        seconds = median(samples)
        gflops = 2e-9 * w.m * w.n * w.k / seconds
        row |= {"seconds": seconds, "gflops": gflops, "error": verdict.error, "outcome": verdict.outcome.value}
    return rows


def bench(args: argparse.Namespace, runner: Runner, folder: Path) -> Row:
    info = runner.describe()
    rows: list[Row] = []
    with CompilePool(info.renderer, args.workers) as pool:
        store = Store.open(folder / "bench.sqlite")
        tuner = Tuner(store, runner, pool, Run(str(uuid.uuid4()), "bench", args.beam, args.budget, info.versions))
        for w in workloads(args):
            found: dict[str, Schedule | None] = {"heuristic": untuned(w), "default": sink.default(w, info.renderer)}
            row: Row = {"format": w.format, "n": w.n, "k": w.k, "m": w.m}
            if args.budget:
                result = tuner.tune(w)
                found["tuned"] = result.schedule
                row |= {"status": result.status, "tried": result.tried, "search_seconds": result.elapsed_seconds}
            present = {kind: schedule for kind, schedule in found.items() if schedule is not None}
            row |= dict(zip(present, timed(runner, pool, w, list(present.values())), strict=True))
            rows.append(row)
            print(line(row), file=sys.stderr, flush=True)
    return {
        "bench": "prefill_linears",
        "target": asdict(info.target),
        "clock": info.clock,
        "versions": dict(info.versions),
        "rows": rows,
    }


def line(row: Row) -> str:
    out = f"{row['format'] + ' ' + str(row['n']) + 'x' + str(row['k']):<20}{row['m']:>6}"
    for kind in KINDS:
        figures = row.get(kind, {})
        out += f"{1e6 * figures.get('seconds', math.nan):>12.1f}{figures.get('gflops', math.nan):>10.0f}"
        out += f"{figures.get('error', math.nan):>9.0e}"
    chosen: Row = row.get("tuned") or row.get("default") or row["heuristic"]
    return f"{out}  {chosen['schedule']['variant']}"


def table(report: Row) -> str:
    kinds = "".join(f"{kind:>12}{'GFLOP/s':>10}{'error':>9}" for kind in KINDS)
    head = f"{'weight':<20}{'tokens':>6}{kinds}  variant"
    return "\n".join([head, *map(line, report["rows"]), "times in µs; errors ||out - ref|| / ||ref||"])


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("shapes", nargs="*", default=SHAPES, metavar="FORMAT:N:K")
    parser.add_argument("--tokens", type=int, nargs="+", default=(32, 512))
    options.add_search(parser, 20.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Runner(devices.choose_device()) as runner:
        report = bench(args, runner, Path(folder))
    print(table(report))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
