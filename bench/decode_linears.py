"""Claim: a sweep finds faster schedules for a model's linears than tinygrad's heuristic and BEAM do, in less time.

    python -m bench.decode_linears llama-3.1-8b --budget 30 --stock 2

MODEL is a GGUF or the name of one in tests/data/models. Sweeps its workloads at one token into a temporary store on the
device that DEV names. Then times each winner with cold weights, in chains of dependent and of independent launches.
Also runs tinygrad's own BEAM search on the first --stock workloads, and times its results in the same way. Prints a
table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autotune.tinygrad_api.lower import Program
from autotune.trial import statistics
from autotune.trial.compiler import CompilePool, Job
from autotune.trial.pipeline import BASELINE_SECONDS, BASELINE_UOPS
from autotune.trial.runner import Runner
from autotune.tune import Tuner
from autotune.workloads import ModelWorkload, workloads
from bench import options
from db.codec import schedule_to_json
from db.records import Opt, Run, Schedule, Workload
from db.store import Store
from kernels import devices
from kernels.models.header import read_header
from kernels.serve.defaults import heuristic

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from support.gguf_files import load_model, write_sparse_gguf  # noqa: E402

Row = dict[str, Any]

# Runs in its own process, because tinygrad's BEAM opens the device and times there. The kernel is `factored` with one
# accumulator, the form that works best with tinygrad's BEAM.
_STOCK = """
import json, sys, time
from dataclasses import replace
from tinygrad import Device
from tinygrad.codegen import to_program
from autotune.tinygrad_api.lower import codegen_context
from db.codec import schedule_from_json, workload_from_json
from kernels.serve import sink
w, schedule = workload_from_json(json.loads(sys.argv[1])), schedule_from_json(json.loads(sys.argv[2]))
kernel = sink.build(w, schedule)
start = time.monotonic()
program = to_program(kernel.replace(arg=replace(kernel.arg, beam=int(sys.argv[3]))), Device.default.renderer)
opts = [(o.op.name, o.axis, o.arg) for o in program.src[0].arg.applied_opts]
print(json.dumps({"seconds": time.monotonic() - start, "opts": opts}))
"""


def model_path(name: str, folder: Path) -> Path:
    if Path(name).exists():
        return Path(name)
    path = folder / f"{name}.gguf"
    write_sparse_gguf(path, *load_model(name))
    return path


def stock_beam(w: Workload, width: int, workers: int) -> tuple[Schedule, float]:
    """The schedule that tinygrad's BEAM=width finds for the `factored` kernel, and the seconds of the search."""
    from db.codec import workload_to_json

    plain = next(s for s in heuristic(w, os.environ.get("DEV", "CPU").split(":")[0]) if s.variant == "factored")
    arguments = [json.dumps(workload_to_json(w)), json.dumps(schedule_to_json(plain)), str(width)]
    env = {**os.environ, "CACHELEVEL": "0", "PARALLEL": str(workers), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _STOCK, *arguments], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    opts = tuple(Opt(op, axis, tuple(arg) if isinstance(arg, list) else arg) for op, axis, arg in answer["opts"])
    return Schedule(plain.variant, plain.params, opts), answer["seconds"]


def plain(w: Workload) -> Workload:
    """The linear of the same shape without an epilogue."""
    return Workload("linear", w.format, w.n, w.k, w.m, w.x_dtype, w.out_dtype)


def compiled(pool: CompilePool, w: Workload, schedules: Sequence[Schedule]) -> list[Program | None]:
    jobs = [Job(i, w, s, BASELINE_UOPS, BASELINE_SECONDS) for i, s in enumerate(schedules)]
    found = {c.key: c.program for c in pool.compile(jobs)}
    return [found[i] for i in range(len(schedules))]


def timed(runner: Runner, pool: CompilePool, w: Workload, schedules: Sequence[Schedule]) -> list[tuple[float, float]]:
    """(independent, chained) median seconds of each schedule. The chained samples are taken in turn."""
    runner.prepare(w)
    programs = compiled(pool, w, schedules)
    present = [p for p in programs if p is not None]
    chained = iter(runner.compare(present, 24))
    out = []
    for program in programs:
        if program is None:
            out.append((math.nan, math.nan))
            continue
        independent = runner.chain(program, dependent=False).samples
        out.append((median(independent), median(next(chained).samples)))
    return out


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples) if samples else math.nan


def bench(args: argparse.Namespace, runner: Runner, folder: Path) -> Row:
    info = runner.describe()
    plan = workloads(read_header(model_path(args.model, folder)), linears=True)
    linears = [replace(mw, count=len(mw.tensors)) for mw in plan.workloads if mw.workload == plain(mw.workload)]
    store = Store.open(args.db or folder / "bench.sqlite")
    rows: list[Row] = []
    with CompilePool(info.renderer, args.workers) as pool:
        tuner = Tuner(store, runner, pool, Run(str(uuid.uuid4()), "bench", args.beam, args.budget, info.versions))
        start = time.monotonic()
        results = []
        for mw in linears:
            results.append((mw, tuner.tune(mw.workload)))
            print(
                f"  {mw.workload.format} {mw.workload.n}x{mw.workload.k}: {results[-1][1]}", file=sys.stderr, flush=True
            )
        sweep_seconds = time.monotonic() - start
        for mw, result in results:
            if result.schedule is None:
                rows.append({**asdict(mw.workload), "status": result.status, "reason": result.reason})
                continue
            by_heuristic = list(heuristic(mw.workload, info.renderer.target.device))
            tuned, *others = timed(runner, pool, mw.workload, [result.schedule, *by_heuristic])
            row = summary(mw, result.schedule, tuned, min(others, key=lambda t: t[1]))
            rows.append({**row, "search_seconds": result.elapsed_seconds, "tried": result.tried, "error": result.error})
        for row, (mw, _) in list(zip(rows, results, strict=True))[: args.stock]:
            found, seconds = stock_beam(mw.workload, args.stock_beam, pool.workers)
            ((independent, chained),) = timed(runner, pool, mw.workload, [found])
            row["stock_beam"] = {"seconds": chained, "independent_seconds": independent, "search_seconds": seconds}
            row["stock_beam"]["schedule"] = schedule_to_json(found)
    return {
        "bench": "decode_linears",
        "model": args.model,
        "target": asdict(info.target),
        "clock": info.clock,
        "versions": dict(info.versions),
        "copy_gbps": runner.copy_bandwidth() / 1e9,
        "sweep_seconds": sweep_seconds,
        "stock_beam_width": args.stock_beam,
        "rows": rows,
    }


def summary(mw: ModelWorkload, schedule: Schedule, tuned: tuple[float, float], plain: tuple[float, float]) -> Row:
    w = mw.workload
    return {
        "format": w.format,
        "n": w.n,
        "k": w.k,
        "m": w.m,
        "count": mw.count,
        "nbytes": mw.nbytes,
        "heuristic_independent_seconds": plain[0],
        "heuristic_seconds": plain[1],
        "tuned_independent_seconds": tuned[0],
        "tuned_seconds": tuned[1],
        "gain": plain[1] / tuned[1],
        "schedule": schedule_to_json(schedule),
    }


def table(report: Row) -> str:
    heads = ("a token", "heuristic", "tuned", "independent", "GB/s", "gain")
    lines = [f"{'workload':<22}" + "".join(f"{h:>12}" for h in heads) + "  stock BEAM"]
    for r in report["rows"]:
        if "gain" not in r:
            lines.append(f"{r['format']} {r['n']}x{r['k']}: {r['status']} {r['reason']}")
            continue
        us = [1e6 * r[name] for name in ("heuristic_seconds", "tuned_seconds", "tuned_independent_seconds")]
        gbps = r["nbytes"] / r["tuned_seconds"] / 1e9
        line = f"{r['format'] + ' ' + str(r['n']) + 'x' + str(r['k']):<22}{r['count']:>12}"
        line += "".join(f"{t:>12.1f}" for t in us) + f"{gbps:>12.0f}{r['gain']:>12.2f}"
        if stock := r.get("stock_beam"):
            line += f"  {1e6 * stock['seconds']:.1f}, searched {stock['search_seconds']:.0f} s"
            line += f" (ours {r['search_seconds']:.0f} s)"
        lines.append(line)
    gains = [r["gain"] for r in report["rows"] if "gain" in r]
    lines.append(f"geometric mean gain {math.exp(sum(map(math.log, gains)) / len(gains)):.2f}, ")
    lines[-1] += f"sweep {report['sweep_seconds']:.0f} s, copy {report['copy_gbps']:.0f} GB/s; times in µs"
    return "\n".join(lines)


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("model")
    options.add_search(parser, 30.0)
    parser.add_argument("--stock", type=int, default=0, help="workloads to run tinygrad's own BEAM on")
    parser.add_argument("--stock-beam", type=int, default=4)
    parser.add_argument("--db", help="keep the store here")
    args = parser.parse_args()
    choice = devices.choose_device()
    with tempfile.TemporaryDirectory() as folder, Runner(choice) as runner:
        report = bench(args, runner, Path(folder))
    print(table(report))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
