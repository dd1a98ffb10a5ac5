"""Claim: at the same budget, beam search finds faster schedules than random search does.

    python -m bench.strategies --candidates 40 --repeats 2

For each FORMAT:N:K:M, every strategy proposes --candidates schedules on the device that DEV names, with its own store.
This is repeated --repeats times with different seeds. Then the accepted schedules and our default are measured in turn,
so that the figures of a row come from one comparison. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotune.search.space import Candidate
from autotune.search.strategies import STRATEGIES, MakeStrategy, Strategy, Task
from autotune.trial.compiler import CompilePool
from autotune.trial.pipeline import Pipeline
from autotune.trial.runner import Runner
from autotune.trial.statistics import beats, median
from autotune.tune import Result, Tuner
from bench import options
from db.codec import schedule_to_json
from db.records import Run, Schedule, Workload
from db.store import Store
from kernels import devices
from kernels.serve.sink import default

Row = dict[str, Any]
WORKLOADS = ("Q4_K:1024:1024:1", "Q8_0:2048:512:1", "Q6_K:512:1024:4")
SECONDS = 600.0  # a longer search is stopped


class Budget:
    """A strategy that ends after `count` proposals, because a budget in seconds would depend on the load of the
    machine."""

    def __init__(self, strategy: Strategy, count: int) -> None:
        self._strategy, self._left = strategy, count

    def propose(self, count: int) -> list[Candidate]:
        batch = self._strategy.propose(min(count, self._left)) if self._left else []
        self._left -= len(batch)
        return batch

    def observe(self, candidate: Candidate, seconds: float | None) -> None:
        self._strategy.observe(candidate, seconds)


def budgeted(make: MakeStrategy, seed: int, count: int) -> Callable[[Task], Strategy]:
    """Makes strategies that end after `count` proposals."""
    return lambda task: Budget(make(task, seed=seed), count)


def workload(text: str) -> Workload:
    format, n, k, m = text.split(":")
    return Workload("linear", format, int(n), int(k), int(m))


def searched(runner: Runner, pool: CompilePool, w: Workload, args: argparse.Namespace, seed: int) -> dict[str, Result]:
    """The result of each strategy, starting without measurements."""
    found = {}
    for name, make in STRATEGIES.items():
        with tempfile.TemporaryDirectory() as folder:
            run = Run(str(uuid.uuid4()), "bench", 0, SECONDS, runner.describe().versions)
            store = Store.open(Path(folder, "store.sqlite"))
            tuner = Tuner(store, runner, pool, run, strategy=budgeted(make, seed, args.candidates))
            found[name] = tuner.tune(w)
    return found


def compared(runner: Runner, pool: CompilePool, w: Workload, found: dict[str, Result]) -> Row:
    """Median seconds of each schedule, from samples that were taken in turn."""
    wanted: dict[str, Schedule | None] = {name: result.schedule for name, result in found.items()}
    wanted["default"] = default(w, runner.describe().renderer)
    runner.prepare(w)
    pipeline = Pipeline(runner, pool, w)
    schedules = list(dict.fromkeys(s for s in wanted.values() if s is not None))
    trials = [pipeline.measure(pipeline.validate(t)) for t in list(pipeline.compile(schedules, patient=schedules))]
    samples = {t.schedule: t.samples for t in pipeline.compare(trials).compared}
    row: Row = {
        name: {
            "seconds": median(samples[s]) if s in samples else None,
            "tried": found[name].tried if name in found else 0,
            "search_seconds": found[name].elapsed_seconds if name in found else 0.0,
            "schedule": schedule_to_json(s) if s else None,
        }
        for name, s in wanted.items()
    }
    beam, other = (samples.get(s) if (s := wanted[name]) else None for name in ("beam", "random"))
    # the result of the paired test; None if one of the two failed
    row["beam_wins"] = beats(beam, other) if beam and other else None
    row["random_wins"] = beats(other, beam) if beam and other else None
    return row


def speedup(row: Row) -> float:
    """The seconds of random search divided by those of beam search."""
    beam, other = row["beam"]["seconds"], row["random"]["seconds"]
    return other / beam if beam and other else math.nan


def line(row: Row) -> str:
    names = ("default", "random", "beam")
    cells = "".join(f"{1e6 * (row[name]['seconds'] or math.nan):>10.1f}{row[name]['tried']:>6}" for name in names)
    verdict = "beam" if row["beam_wins"] else "random" if row["random_wins"] else "neither"
    return f"{row['workload']:<22}{row['seed']:>5}{cells}{speedup(row):>15.2f}  {verdict}"


def table(rows: list[Row]) -> str:
    names = "".join(f"{name:>10}{'tried':>6}" for name in ("default", "random", "beam"))
    return "\n".join([f"{'workload':<22}{'seed':>5}{names}{'random / beam':>15}  faster", *map(line, rows)])


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("workloads", nargs="*", default=WORKLOADS, metavar="FORMAT:N:K:M")
    parser.add_argument("--candidates", type=int, default=40, help="schedules that each strategy may propose")
    parser.add_argument("--repeats", type=int, default=1, help="searches of each workload, with different seeds")
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    rows: list[Row] = []
    choice = devices.choose_device()
    devices.activate(choice)
    with Runner(choice) as runner, CompilePool(runner.describe().renderer, args.workers) as pool:
        info = runner.describe()
        for text in args.workloads:
            for seed in range(args.repeats):
                found = searched(runner, pool, w := workload(text), args, seed)
                rows.append({"workload": text, "seed": seed} | compared(runner, pool, w, found))
                print(line(rows[-1]), file=sys.stderr, flush=True)
    ratios = [ratio for row in rows if math.isfinite(ratio := speedup(row))]
    mean = statistics.geometric_mean(ratios) if ratios else None
    print(table(rows))
    if mean is not None:
        print(
            f"geometric mean of random / beam: {mean:.2f} over {len(ratios)} searches of {args.candidates} candidates"
        )
    report = {"bench": "strategies", "target": asdict(info.target), "versions": dict(info.versions)}
    report |= {"clock": info.clock, "candidates": args.candidates, "rows": rows, "random_over_beam": mean}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
