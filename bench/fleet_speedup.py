"""Claim: a sweep by two GPUs of one host takes about half the time that it takes one.

    python -m bench.fleet_speedup llama-3.2-1b --devices 1 2 --workloads 10 --budget 2

Sweeps the first workloads of a model of tests/data/models with each number of devices, each time into a new store and
with new caches. Needs no network. Prints a table, then one JSON line. The seconds are from the first task to the last
row: without the start of the workers, which is shown beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.gguf_files import load_model, write_sparse_gguf

from autotune.fleet.client import Fleet, Group, Part, groups
from autotune.fleet.cluster import Place, connected
from autotune.settings import Settings
from autotune.workloads import ModelPlan, workloads
from bench import options
from db.store import Store
from kernels.models.header import read_header


@dataclass(frozen=True)
class Swept:
    devices: int
    start_seconds: float
    seconds: float
    statuses: dict[str, int]
    tried: int
    mean_task_seconds: float


def plan_of(model: str, folder: Path, device: str, count: int) -> ModelPlan:
    metadata, tensors = load_model(model)
    path = folder / f"{model}.gguf"
    write_sparse_gguf(path, metadata, tensors)
    plan = workloads(read_header(path), (1,), "float32", 4096, True, device)
    return replace(plan, workloads=plan.workloads[:count])


def swept(args: argparse.Namespace, devices: int) -> tuple[Swept, Group]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        settings = replace(Settings.from_environment(), budget_seconds=args.budget, beam_width=args.beam)
        begun = time.monotonic()
        with connected(Place(count=devices), settings) as client:
            (group,) = groups(client)
            plan = plan_of(args.model, folder, group.device, args.workloads)
            part = Part(group, settings, Store.open(folder / "store.sqlite"), plan, "bench")
            started = time.monotonic()
            rows = []
            for _, row in Fleet(client, [part]).rows():
                rows.append(row)
                at, r = time.monotonic() - started, row.result
                said = f"{devices} devices, {at:6.1f} s: {r.workload.op} {r.status} in {r.elapsed_seconds:.1f} s"
                print(said, file=sys.stderr, flush=True)
            seconds = time.monotonic() - started
        results = [row.result for row in rows]
        mean = sum(r.elapsed_seconds for r in results) / max(1, len(results))
        statuses = dict(Counter(r.status for r in results))
        return Swept(devices, started - begun, seconds, statuses, sum(r.tried for r in results), mean), group


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("model", nargs="?", default="llama-3.2-1b")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workloads", type=int, default=10)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of search for each workload")
    parser.add_argument("--beam", type=int, default=4)
    args = parser.parse_args()
    print(f"{'devices':>8}{'start s':>9}{'seconds':>9}{'tried':>7}{'s a task':>10}{'ratio':>7}")
    found: list[Swept] = []
    for devices in args.devices:
        one, group = swept(args, devices)
        found.append(one)
        ratio = found[0].seconds / one.seconds
        print(
            f"{devices:>8}{one.start_seconds:>9.1f}{one.seconds:>9.1f}{one.tried:>7}{one.mean_task_seconds:>10.1f}"
            f"{ratio:>7.2f}",
            flush=True,
        )
    about = {"model": args.model, "target": asdict(group.target), "distributed": version("distributed")}
    print(json.dumps({"bench": "fleet_speedup", **about, "found": [asdict(one) for one in found]}))


if __name__ == "__main__":
    main()
