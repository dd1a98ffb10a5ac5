"""What runs in a Dask worker: it owns one device, and tunes one workload a task. Arguments and results are JSON texts.

`dask worker SCHEDULER --nthreads 1 --preload autotune.fleet.worker` makes a worker of a fleet.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from autotune.fleet.device import Device, Effort, info_to_json, own
from autotune.result import Result
from autotune.trial.runner import RunnerError
from db import codec, schema, shipping
from db.engine import empty_engine, writing
from db.errors import StoreError
from db.records import Schedule, Served, Target, Workload
from db.rows import Recorded, Timing
from db.store import Store
from kernels.ops.registry import kernel_digest

RESOURCE = "autotune-"
"""A Dask resource of this name and a target's digest: what tasks for that target ask for, one of one a worker."""


async def dask_setup(worker: Any) -> None:
    """Dask calls this before the worker registers, after a restart too: it offers its device."""
    if worker.nanny is not None:  # which ends the worker; Ctrl-C in a terminal reaches both
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    device = await asyncio.get_running_loop().run_in_executor(None, own)
    offer(worker, device)


def offer(worker: Any, device: Device) -> None:
    resource = RESOURCE + codec.target_digest(device.info.target)
    worker.state.total_resources[resource] = worker.state.available_resources[resource] = 1.0


def describe() -> str:
    """JSON: the worker's device, its target and versions."""
    return json.dumps(info_to_json(own()))


def tune(task: str) -> str:
    """Tunes one workload; `task` is JSON of what `client.Part.claim` says, and the answer of what `answer`
    does. A workload that fails is an answer."""
    from distributed import get_worker

    worker, asked = get_worker(), json.loads(task)

    def tell(schedule: Schedule | None) -> None:
        started = None if schedule is None else codec.schedule_to_json(schedule)
        about = {"task": asked["task"], "worker": worker.address, "started": started}
        worker.log_event(asked["client"], json.dumps(about))

    tell(None)
    return json.dumps(answer(own(), asked, tell))


def answer(device: Device, asked: Mapping[str, Any], tell: Callable[[Schedule | None], None]) -> dict[str, Any]:
    """`tell` is told which candidate runs on the device, and None when it has ended."""
    w = codec.workload_from_json(asked["workload"])
    if (digest := kernel_digest(w)) != asked["kernel_digest"]:
        reason = "the worker's kernels are of another version than the client's"
        return {"result": result_to_json(Result(w, "failed", reason=reason)), "rows": shipping.rows_to_json([])}
    near = tuple(_neighbour(device, seen) for seen in asked["neighbours"])
    timings = tuple(shipping.timings_from_json(asked["timings"]))
    best = asked["served"] and codec.schedule_from_json(asked["served"])
    store = _TellingStore("a worker's own", empty_engine(), tell=tell, best=best, near=near, timed=timings)
    shipping.add_rows(store, asked["known"])
    _add_attempts(store, (w, device.info.target, digest), asked["attempts"])
    last = max((row.id for row in _rows(store, w)), default=0)
    try:
        result = device.tune(store, Effort(**asked["effort"]), w)
    except RunnerError as e:  # no room for the inputs, say
        result = Result(w, "failed", reason=str(e))
    bandwidth = None
    with suppress(RunnerError):  # a figure to compare with is no reason to fail
        bandwidth = device.copy_bandwidth()
    new = [row for row in _rows(store, w) if row.id > last]
    return {"result": result_to_json(result), "copy_bandwidth": bandwidth, "rows": shipping.rows_to_json(new)}


def result_to_json(result: Result) -> dict[str, Any]:
    schedule = None if result.schedule is None else codec.schedule_to_json(result.schedule)
    return asdict(result) | {"workload": codec.workload_to_json(result.workload), "schedule": schedule}


def result_from_json(value: Mapping[str, Any]) -> Result:
    schedule = None if value["schedule"] is None else codec.schedule_from_json(value["schedule"])
    return Result(**{**value, "workload": codec.workload_from_json(value["workload"]), "schedule": schedule})


@dataclass(frozen=True)
class _TellingStore(Store):
    """best: what the client's store serves for the workload, which may be imported. near: what it serves for other
    shapes, nearest first. timed: what it knows of the op's speed."""

    tell: Callable[[Schedule | None], None] = lambda schedule: None
    best: Schedule | None = None
    near: tuple[Served, ...] = ()
    timed: tuple[Timing, ...] = ()

    def served(self, workload: Workload, target: Target, kernel_digest: str) -> Schedule | None:
        return self.best

    def target_timings(self, target: Target, op: str, limit: int) -> tuple[Timing, ...]:
        return self.timed[:limit]

    def neighbours(self, workload: Workload, target: Target, kernel_digest: str, limit: int) -> tuple[Served, ...]:
        return self.near[:limit]

    def attempt(self, workload: Workload, target: Target, kernel_digest: str, schedule: Schedule) -> None:
        super().attempt(workload, target, kernel_digest, schedule)
        self.tell(schedule)

    def record(self, run_id: str, measurements: Any) -> None:
        super().record(run_id, measurements)
        self.tell(None)


def _neighbour(device: Device, seen: Mapping[str, Any]) -> Served:
    w, schedule = codec.workload_from_json(seen["workload"]), codec.schedule_from_json(seen["schedule"])
    return Served(w, device.info.target, schedule, 0.0, "user")


def _rows(store: Store, w: Workload) -> tuple[Recorded, ...]:
    try:
        return store.measurements(codec.workload_digest(w))
    except StoreError:  # nothing was measured
        return ()


def _add_attempts(store: Store, key: tuple[Workload, Target, str], attempts: Mapping[str, int]) -> None:
    w, target, digest = key
    about = {"workload": codec.workload_digest(w), "target": codec.target_digest(target), "kernel_digest": digest}
    with writing(store.engine) as connection:
        for schedule, count in attempts.items():
            connection.execute(schema.attempts.insert(), about | {"schedule": schedule, "count": count})
