"""Claim: a token on a CPU takes less time with more threads, and less with schedules that were tuned for these.

    python -m bench.cpu_threads model.gguf --threads 1,2,4 --db store.sqlite

Times captured tokens of a model, with random weights at its shapes, for each number of threads in a process of its own:
with the default schedules and, if a store is given, in turns with what that serves to so many threads. Prints a table,
then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.trial.statistics import summarize
from autotune.trial.token import Schedules, TokenTimer
from bench import options
from db.lookup import Lookup
from db.records import Workload
from kernels import backends, devices
from kernels.host import threads
from kernels.llm.planned import plan
from kernels.llm.shapes import X_DTYPE
from kernels.models.header import Header, read_header
from kernels.ops.tolerance import tolerance
from kernels.serve.resolution import Resolution
from kernels.serve.server import Server

DEVICE = backends.HOST


def launched(header: Header, context: int) -> tuple[Workload, ...]:
    """The distinct launches of a token."""
    decode = plan(header, context, DEVICE, weights=False).passes.decode.until("next")
    return tuple(dict.fromkeys(launch.workload(1, X_DTYPE) for launch in decode))


def served(workloads: Sequence[Workload], lookup: Lookup, mode: str) -> dict[Workload, Resolution]:
    server, target = Server(lookup, mode), devices.describe_target(DEVICE)
    return {w: server.resolve(w, target) for w in workloads}


def schedules(found: dict[Workload, Resolution]) -> Schedules:
    return tuple((w, resolution.schedule) for w, resolution in found.items())


def timed(a: argparse.Namespace, header: Header, workloads: Sequence[Workload], count: int) -> dict[str, Any]:
    """Seconds of a token with `count` threads, and where the store's schedules come from."""
    os.environ[threads.VARIABLE] = str(count)
    sets = {"default": served(workloads, Lookup(Path(os.devnull, "none"), limit=tolerance), "off")}
    if a.db:
        sets["stored"] = served(workloads, Lookup(a.db, limit=tolerance), "on")
    with TokenTimer(devices.choose_device({**os.environ, "DEV": DEVICE}), header, a.ctx) as timer:
        samples = timer.compare(1, [schedules(found) for found in sets.values()], a.rounds)
        layers = timer.loaded.layers
    steps = Counter(resolution.step for resolution in sets.get("stored", {}).values())
    medians = {f"{name}_seconds": summarize(s).median for name, s in zip(sets, samples, strict=True)}
    return {"threads": count, "layers": layers, **medians, "steps": dict(steps)}


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("model", help="a GGUF file, of which the header is read")
    parser.add_argument("--threads", help="numbers of threads, as in 1,2,4; by default 1, 2, 4 .. up to all cores")
    parser.add_argument("--db", help="a store whose schedules are compared with the defaults")
    parser.add_argument("--ctx", type=int, default=4096, help="positions of the cache")
    parser.add_argument("--rounds", type=int, default=24, help="samples of each set of schedules")
    a = parser.parse_args()
    most = threads.available()
    counts = [int(n) for n in a.threads.split(",")] if a.threads else [*_doubled(most), most]
    devices.activate(devices.choose_device({**os.environ, "DEV": DEVICE}))
    header = read_header(a.model)
    workloads = launched(header, a.ctx)
    rows = []
    for count in counts:
        rows.append(row := timed(a, header, workloads, count))
        rates = "  ".join(f"{name[:-8]} {1 / row[name]:7.1f} tok/s" for name in row if name.endswith("_seconds"))
        print(f"{count:4} threads  {rates}  {row['steps'] or ''}", flush=True)
    print(json.dumps({"model": Path(a.model).name, **options.described(DEVICE), "ctx": a.ctx, "rows": rows}))


def _doubled(most: int) -> list[int]:
    """1, 2, 4 .. below `most`."""
    return [1 << i for i in range((most - 1).bit_length())]


if __name__ == "__main__":
    main()
