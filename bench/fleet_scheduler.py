"""Claim: one Dask scheduler and one client keep a thousand devices busy with tasks of tens of seconds.

    python -m bench.fleet_scheduler --workers 10 100 1000 --seconds 20

The devices are made up: threads of this process that sleep for --seconds a task and answer with the rows of a search.
All else is as in a sweep: the client leases a workload, submits it, and stores its rows. Prints a table, then one JSON
line. busy: the share of the devices' time in which they slept; cpu: milliseconds of this process for each task, of the
scheduler, of the client and of the workers together.
"""

from __future__ import annotations

import json
import logging
import platform
import tempfile
import time
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from autotune.fleet.client import Fleet, Group, Part
from autotune.fleet.worker import RESOURCE, result_to_json
from autotune.result import Result
from autotune.settings import Settings
from autotune.trial.messages import DeviceInfo
from autotune.workloads import ModelPlan, ModelWorkload
from bench import options
from db import codec, shipping
from db.engine import empty_engine
from db.records import Measurement, Outcome, Run, Schedule, Stage, Target, Workload
from db.store import Store
from kernels.ops.registry import kernel_digest

TARGET = Target("CL", "made", "made up", 4)
GROUP_RESOURCE = RESOURCE + codec.target_digest(TARGET)
CANDIDATES = 40  # of a search of 20 s
# What a real worker spends on watching itself is no load of this process.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "60s",
    "distributed.admin.tick.interval": "10s",
}
SECONDS = [20.0]
FORMATS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
NOTHING = Workload("linear", "Q8_0", 1, 64)
PLACEHOLDER = codec.workload_to_json(NOTHING)


@dataclass(frozen=True)
class Figures:
    workers: int
    tasks: int
    seconds: float
    busy: float
    cpu_milliseconds: float
    start_seconds: float


def sleep(task: str) -> str:
    """What a worker does: nothing, for a while, and the rows of a search that took so long."""
    asked = json.loads(task)
    time.sleep(SECONDS[0])
    return ANSWER.replace(json.dumps(PLACEHOLDER), json.dumps(asked["workload"])).replace("a run", uuid.uuid4().hex)


def answer() -> str:
    """Made once: what a real worker spends on it is no load of the scheduler or the client."""
    schedules = [Schedule("made", (("number", i),), ()) for i in range(CANDIDATES)]
    run = Run("run", "bench", 4, SECONDS[0])
    stages = [Stage.BASELINE, *[Stage.PROBE] * (CANDIDATES - 2), Stage.FINAL]
    store = Store("memory", empty_engine())
    store.start_run(run)
    facts = [
        Measurement(NOTHING, TARGET, s, kernel_digest(NOTHING), stage, Outcome.OK, (1e-5, 2e-5, 3e-5), 1, 1e-7, 1e-5)
        for s, stage in zip(schedules, stages, strict=True)
    ]
    store.record("run", facts)
    rows = shipping.rows_to_json(store.measurements(codec.workload_digest(NOTHING)))
    text = json.dumps({"result": result_to_json(Result(NOTHING, "tuned", schedules[-1], 2e-5, 3e-5)), "rows": rows})
    return text.replace('"run": "run"', '"run": "a run"').replace('"id": "run"', '"id": "a run"')


ANSWER = answer()


def measured(workers: int, tasks_each: int) -> Figures:
    import dask
    from distributed import Client, LocalCluster

    dask.config.set(QUIET)
    begun = time.monotonic()
    count = workers * tasks_each
    models = tuple(
        ModelWorkload(Workload("linear", FORMATS[i % len(FORMATS)], 256 * (i + 1), 256), 1, ("x",), 1000, 0, 0)
        for i in range(count)
    )
    info = DeviceInfo(TARGET, cast(Any, None), 0, 0, "made up", ())
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=False,
            dashboard_address=None,
            memory_limit=0,
            resources={GROUP_RESOURCE: 1},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(workers)
        store = Store.open(Path(folder) / "store.sqlite")
        group = Group(GROUP_RESOURCE, "CL", info, workers)
        part = Part(group, Settings(), store, ModelPlan("llama", models, ()), "bench")
        started, cpu = time.monotonic(), time.process_time()
        rows = list(Fleet(client, [part], sleep).rows())
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        assert len(rows) == count
        assert len(store.finals()) == count
    busy = count * SECONDS[0] / (seconds * workers)
    return Figures(workers, count, seconds, busy, 1e3 * cpu / count, started - begun)


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seconds", type=float, default=20.0, help="of a task")
    parser.add_argument("--tasks", type=int, default=3, help="for each worker")
    args = parser.parse_args()
    SECONDS[0] = args.seconds
    found = []
    print(f"{'workers':>8}{'tasks':>8}{'seconds':>9}{'busy':>7}{'cpu ms':>8}{'start s':>9}")
    for workers in args.workers:
        f = measured(workers, args.tasks)
        found.append(f)
        print(
            f"{f.workers:>8}{f.tasks:>8}{f.seconds:>9.1f}{f.busy:>7.0%}{f.cpu_milliseconds:>8.1f}{f.start_seconds:>9.1f}"
        )
    about = {"task_seconds": args.seconds, "distributed": version("distributed"), "on": platform.platform()}
    print(json.dumps({"bench": "fleet_scheduler", **about, "found": [vars(f) for f in found]}))


if __name__ == "__main__":
    main()
