"""Claim: with a good schedule, a UOp.range kernel is faster than plain Tensor code and than a fixed grid. On a Mac, it
is also compared with hand-written Metal.

    python -m bench.q4k_variants --budget 20         # times, on the device that DEV names
    python -m bench.q4k_variants --simulate          # no Mac: msl and range as Metal source, numerics only

Multiplies one Q4_K weight of 4096 x 4096 by one vector, with each of the four kernels of `bench/q4k_kernels.py`.
`range` runs under the default schedule, and under the looked-up schedule or, with --budget, the result of a search of
that many seconds, if it is a different one. Times are of products in a captured chain, each of which waits for the one
before, by the wall clock. "cold" rotates through copies of the weight that exceed the last-level cache four times (up
to 2 GiB, 128 copies), "warm" uses one copy. GB/s count the weight. Errors are relative to the float64 product of the
dequantised weight. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from autotune.metalsim.executor import SimulatedLaunch, run_orders
from autotune.simulate import check, simulated_target
from autotune.trial.compiler import CompilePool
from autotune.trial.runner import Runner
from autotune.tune import Tuner
from bench import options
from db.codec import schedule_to_json
from db.records import Run, Schedule
from db.store import Store
from kernels import devices
from kernels.formats import reference
from kernels.serve.defaults import defaults
from kernels.serve.server import Server, resolve

SIZE = 4096
COLD_CACHES, COLD_CAP, MAX_COPIES = 4, 2 << 30, 128
PRODUCTS = 48  # the smallest number of products in a captured chain
ARCH = "Apple9"
Row = dict[str, Any]


def tuned(args: argparse.Namespace, choice: devices.Choice) -> tuple[Schedule | None, str]:
    """The schedule that a search finds for the kernel, and a note on how it ended."""
    from bench.q4k_kernels import workload

    with tempfile.TemporaryDirectory() as folder, Runner(choice) as runner:
        info, store = runner.describe(), Store.open(args.db or Path(folder) / "bench.sqlite")
        with CompilePool(info.renderer, args.workers) as pool:
            run = Run(str(uuid.uuid4()), "bench", args.beam, args.budget, info.versions)
            found = Tuner(store, runner, pool, run).tune(workload(args.size, args.size))
    return found.schedule, f"searched {args.budget:g} s: {found.status}"


def measured(args: argparse.Namespace, make: Callable[[], Any], raw: np.ndarray, note: str = "") -> Row:
    """A row of the table, or the reason why it is missing."""
    from tinygrad import Device, Tensor

    from bench.captured import captured
    from bench.q4k_kernels import KernelMissing

    try:
        variant = make()
    except KernelMissing as e:
        return {"missing": str(e)}
    x = np.random.default_rng(1).standard_normal((1, args.size)).astype(np.float32)
    first = Tensor(x).realize()
    enough = COLD_CACHES * devices.facts(Device.DEFAULT).cache_nbytes
    count = min(1 + min(enough, COLD_CAP) // raw.nbytes, MAX_COPIES)
    copies = [variant.pack(raw) for _ in range(count)]
    truth = reference.linear(raw, "Q4_K", (args.size, args.size), x)
    error = np.linalg.norm(variant.multiply(first, copies[0]).numpy() - truth) / np.linalg.norm(truth)
    row: Row = {"error": float(error), "copies": len(copies), "note": note}
    for name, weights in (("cold", copies), ("warm", copies[:1])):
        products = len(weights) * -(-PRODUCTS // len(weights))

        def chain(weights: list[Any] = weights, products: int = products) -> Tensor:
            out = first
            for copy in itertools.islice(itertools.cycle(weights), products):
                out = variant.multiply(out, copy)
            return out

        found = captured(chain, products, args.rounds)
        row |= {f"{name}_seconds": found.seconds, "launches": found.launches}
    return row


def rows(args: argparse.Namespace, raw: np.ndarray, found: tuple[Schedule | None, str]) -> Iterator[tuple[str, Row]]:
    from tinygrad import Device

    from bench import q4k_kernels as kernels

    n = k = args.size
    w, target = kernels.workload(n, k), devices.describe_target(Device.DEFAULT)
    looked_up, default = resolve(w, target), Server(mode="off").resolve(w, target).schedule
    schedule, note = found
    if schedule is None:
        schedule, note = looked_up.schedule, "; ".join(filter(None, (note, f"looked up: {looked_up.step}")))
    yield "tensor", measured(args, lambda: kernels.tensor(n, k), raw)
    yield "special", measured(args, lambda: kernels.special(n, k), raw)
    same = f"{note}: the default" if schedule == default else ""
    yield "range, default", measured(args, lambda: kernels.scheduled(n, k, default), raw, same)
    if schedule != default:
        row = measured(args, lambda: kernels.scheduled(n, k, schedule), raw, note)
        yield "range", {**row, "schedule": schedule_to_json(schedule)}
    yield "msl", measured(args, lambda: kernels.msl(n, k), raw)


def line(name: str, row: Row, nbytes: int) -> str:
    if "missing" in row:
        return f"{name:16} {row['missing']}"
    times = "".join(
        f"{row[f'{kind}_seconds'] * 1e6:12.1f} {nbytes / row[f'{kind}_seconds'] / 1e9:7.1f}"
        for kind in ("cold", "warm")
    )
    return f"{name:16}{times} {row['launches']:9.1f} {row['error']:9.1e}  {row['note']}"


def simulated(args: argparse.Namespace, raw: np.ndarray) -> Iterator[tuple[str, Row]]:
    """Runs Metal source in three orders of threads, and yields verdicts and errors."""
    from bench.q4k_kernels import MSL_ROWS, MSL_THREADS, metal_source, workload

    n = k = args.size
    x = np.random.default_rng(1).standard_normal((1, k)).astype(np.float32)
    truth = reference.linear(raw, "Q4_K", (n, k), x)
    given = [bytes(4 * n), raw.tobytes(), x.tobytes()]
    result = run_orders(metal_source(n, k), given, (), SimulatedLaunch((n // MSL_ROWS,), (MSL_THREADS,)))
    row: Row = {"verdict": str(result.verdict.kind), "reason": str(result.verdict.message)}
    if result.verdict.ok:
        out = np.frombuffer(result.buffers[0], np.float32)
        row["error"] = float(np.linalg.norm(out - truth) / np.linalg.norm(truth))
    yield "msl", row
    w = workload(n, k)
    looked_up = Server().resolve(w, simulated_target(ARCH))
    for name, schedule in (("range, default", defaults(w, "METAL")[0]), ("range", looked_up.schedule)):
        verdict = check(ARCH, w, schedule)
        row = {"verdict": verdict.outcome.value, "reason": verdict.reason, "error": verdict.error}
        yield name, {**row, "schedule": schedule_to_json(schedule)}


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--size", type=int, default=SIZE, help="rows and columns")
    parser.add_argument("--rounds", type=int, default=10, help="runs of a chain, of which the median is reported")
    options.add_search(parser, 0.0)
    parser.add_argument("--db", help="the store to tune into (default: a temporary one)")
    parser.add_argument("--simulate", action="store_true", help="Metal source on this CPU: errors, no times")
    args = parser.parse_args()
    devices.activate(choice := devices.choose_device())
    # with --budget, a child process uses the device first, so this process must not open it before
    found = tuned(args, choice) if args.budget and not args.simulate else (None, "")
    from bench.q4k_kernels import random_rows

    raw = random_rows(args.size, args.size, np.random.default_rng(0))
    report: Row = {"bench": "q4k_variants", "size": args.size, "tinygrad": version("tinygrad")}
    table: dict[str, Row] = {}
    if args.simulate:
        print(f"Q4_K {args.size} x {args.size} as Metal source on a simulated {ARCH}, in three orders; no times")
        for name, row in simulated(args, raw):
            table[name] = row
            error = "-" if row.get("error") is None else f"{row['error']:.1e}"
            print(f"{name:16} {row['verdict']:16} {error:>9}  {row['reason']}", flush=True)
        report |= {"simulated": ARCH}
    else:
        target = devices.describe_target(choice.device)
        driver = devices.facts(choice.device).driver
        print(f"Q4_K {args.size} x {args.size}, one token, on {target}; {driver}; wall clock")
        print(f"{'':16}{'cold µs':>12} {'GB/s':>7}{'warm µs':>12} {'GB/s':>7} {'launches':>9} {'error':>9}")
        for name, row in rows(args, raw, found):
            table[name] = row
            print(line(name, row, raw.nbytes), flush=True)
        report |= {"target": asdict(target), "driver": driver}
    print(json.dumps({**report, "nbytes": raw.nbytes, "rows": table}))


if __name__ == "__main__":
    main()
