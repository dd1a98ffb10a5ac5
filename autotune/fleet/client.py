"""A sweep whose workloads are tuned by the workers of a fleet. This process alone writes to the store.

At most two tasks for each device are under way, so that no device waits for the next one, and other clients of the
store find work as well. A workload is stored as soon as it comes back.
"""

from __future__ import annotations

import json
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

from autotune.fleet import worker
from autotune.fleet.cluster import describe
from autotune.fleet.errors import FleetError
from autotune.owner import ended, owner
from autotune.session import Session
from autotune.settings import Settings
from autotune.sweep import POLL_SECONDS, RENEW_SECONDS, Row, Sweep
from autotune.trial.messages import DeviceInfo
from autotune.trial.runner import Runner
from autotune.tune import NEIGHBOURS, Result
from autotune.workloads import ModelPlan, ModelWorkload
from db import codec, shipping
from db.errors import StoreError
from db.leases import Leases
from db.records import Schedule, Target, Workload
from db.store import Store
from kernels.devices import Choice
from kernels.ops.registry import kernel_digest, nbytes_moved

TASKS_A_DEVICE = 2
LIVES = 2  # of workers that a workload may cost
SUBMITTED = 5  # times at most, for one that was lost with its worker before it began there
SHIPPED_ROWS = 2000  # of a workload's history at most: some 2 MB
SHIPPED_TIMINGS = 1000  # of other workloads: some 100 KB

Task = Callable[[str], str]


@dataclass(frozen=True)
class Group:
    """The workers of one target. `resource` is what tasks for them ask of Dask; device is what DEV spells."""

    resource: str
    device: str
    info: DeviceInfo
    workers: int

    @property
    def target(self) -> Target:
        return self.info.target


def groups(client: Any) -> tuple[Group, ...]:
    """The targets of a fleet's workers. Raises FleetError if there is none."""
    return tuple(_group(resource, *about) for resource, about in sorted(describe(client).items()))


def _group(resource: str, said: Mapping[str, Any], workers: int) -> Group:
    target = codec.target_from_json(said["target"])
    versions = tuple(sorted(said["versions"].items()))
    info = DeviceInfo(target, cast(Any, None), str(said["clock"]), versions)  # nothing is compiled here
    return Group(resource, str(said["device"]), info, workers)


class _Remote(Runner):
    """Stands for a device of another process, which it only describes."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def describe(self) -> DeviceInfo:
        return self._group.info


class Part(Sweep):
    """What the workers of one target do of a model's sweep. done: of this command, other models too."""

    def __init__(
        self,
        group: Group,
        settings: Settings,
        store: Store,
        plan: ModelPlan,
        command: str,
        *,
        again: bool = False,
        done: dict[Workload, Result] | None = None,
    ) -> None:
        self.done: dict[Workload, Result] = {} if done is None else done
        session = Session(settings, Choice(group.device, "fleet"), store, _Remote(group))
        super().__init__(session, plan, command, again=again, done=self.done)
        self.group, self.store, self._settings = group, store, settings
        self._leases = Leases(store, owner(), ended)

    def claim(self, mw: ModelWorkload) -> Row | dict[str, Any] | None:
        """What a worker has to be told, the lease taken; the row if there is a result by now; None while another sweep
        works on it."""
        if self._leases.take(*self.key(mw)):
            return None
        if row := self._known([mw]).get(mw):
            self.release(mw)
            return row
        w, target, digest = self.key(mw)
        s = self._settings
        served = self.store.served(w, target, digest)
        effort = {"beam_width": s.beam_width, "budget_seconds": s.budget_seconds, "heuristic": s.heuristic}
        return {
            "workload": codec.workload_to_json(w),
            "kernel_digest": digest,
            "effort": {"command": self._command, **effort},
            "served": served and codec.schedule_to_json(served),
            "known": shipping.rows_to_json(self._history(mw)),
            "neighbours": self._neighbours(mw),
            "timings": shipping.timings_to_json(self.store.target_timings(target, w.op, SHIPPED_TIMINGS)),
            "attempts": self.store.attempts(w, target, digest),
        }

    def key(self, mw: ModelWorkload) -> tuple[Workload, Target, str]:
        return mw.workload, self.group.target, kernel_digest(mw.workload)

    def renew(self, mw: ModelWorkload) -> None:
        self._leases.take(*self.key(mw))

    def release(self, mw: ModelWorkload) -> None:
        self._leases.release(*self.key(mw))

    def _history(self, mw: ModelWorkload) -> list[Any]:
        w, target, digest = self.key(mw)
        with suppress(StoreError):  # nothing was measured of it
            rows = self.store.measurements(codec.workload_digest(w))
            mine = [r for r in rows if (r.measurement.target, r.measurement.kernel_digest) == (target, digest)]
            return [r for r in mine if r.origin == "local"][-SHIPPED_ROWS:]
        return []

    def _neighbours(self, mw: ModelWorkload) -> list[dict[str, Any]]:
        near = self.store.neighbours(*self.key(mw), NEIGHBOURS)
        return [
            {"workload": codec.workload_to_json(s.workload), "schedule": codec.schedule_to_json(s.schedule)}
            for s in near
        ]


@dataclass
class _Running:
    """task: what its worker is told. lives: worker -> the candidate that is on its device, of each that began it."""

    part: Part
    model: ModelWorkload
    task: dict[str, Any]
    submitted: int = 0
    future: Any = None
    lives: dict[str, Schedule | None] = field(default_factory=dict)


class Fleet:
    """Tunes what is to do of `parts` on the workers that `client`, a Dask client, reaches."""

    def __init__(self, client: Any, parts: Sequence[Part], task: Task = worker.tune) -> None:
        self._client, self._parts, self._task = client, parts, task
        self._id = f"autotune-{uuid.uuid4().hex}"
        self._running: dict[str, _Running] = {}
        self._done: queue.Queue[str] = queue.Queue()

    def rows(self) -> Generator[tuple[Part, Row], None, None]:
        """First what is settled, then each workload when it is done. What fails does not stop the others.

        When the iterator is exhausted or closed, no task of it is left to start. Raises StoreError, FleetError.
        """
        for part in self._parts:
            yield from ((part, row) for row in part.settled)
        with self._reached(), ExitStack() as stack:
            for store in {id(part.store): part.store for part in self._parts}.values():
                stack.enter_context(store.kept_open())
            self._client.subscribe_topic(self._id, self._hear)
            stack.callback(self._give_up)
            yield from self._tuned({part: deque(part.todo) for part in self._parts})

    def _tuned(self, waiting: dict[Part, deque[ModelWorkload]]) -> Iterator[tuple[Part, Row]]:
        """What has come back is stored before the next workload is submitted."""
        renewed = time.monotonic()
        while self._running or any(waiting.values()):
            key = self._next_done(0)
            if key is None:
                submitted, known = False, []
                for part, models in waiting.items():
                    one, row = self._submit(part, models)
                    submitted |= one
                    known += [(part, row)] if row else []
                yield from known
                key = None if submitted or known else self._next_done(POLL_SECONDS)
            if key is not None and (ended := self._ended(key)):
                yield ended
            if time.monotonic() - renewed > RENEW_SECONDS:
                renewed = time.monotonic()
                for running in self._running.values():
                    running.part.renew(running.model)

    def _next_done(self, seconds: float) -> str | None:
        with suppress(queue.Empty):
            return self._done.get(timeout=seconds) if seconds else self._done.get_nowait()
        return None

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Around all that asks the scheduler: turns what Dask raises when it is lost into FleetError."""
        try:
            yield
        except (OSError, CancelledError, TimeoutError) as e:
            why = " ".join(str(e).split()) or type(e).__name__
            raise FleetError(f"the fleet's scheduler was lost: {why:.200}; what came back is stored") from e

    def _submit(self, part: Part, models: deque[ModelWorkload]) -> tuple[bool, Row | None]:
        """Whether one of `models` was submitted, which happens if the part's devices can take one more; or the row of
        one that others have done meanwhile."""
        mine = sum(running.part is part for running in self._running.values())
        if mine >= TASKS_A_DEVICE * part.group.workers:
            return False, None
        under_way = {r.part.key(r.model) for r in self._running.values()} if len(self._parts) > 1 else set()
        for _ in range(len(models)):
            mw = models.popleft()
            claimed = None if part.key(mw) in under_way else part.claim(mw)  # another model may have it, too
            if isinstance(claimed, Row):
                return False, claimed
            if claimed is not None:
                key = f"{self._id}-{uuid.uuid4().hex}"
                self._start(key, _Running(part, mw, claimed | {"client": self._id, "task": key}))
                return True, None
            models.append(mw)
        return False, None

    def _start(self, key: str, running: _Running) -> None:
        """Dask's name of the task is another each time: it has counted workers against the last."""
        self._running[key] = running
        running.submitted += 1
        with self._reached():
            running.future = self._client.submit(
                self._task,
                json.dumps(running.task),
                key=f"{key}-{running.submitted}",
                pure=False,
                resources={running.part.group.resource: 1},
            )
        running.future.add_done_callback(lambda _: self._done.put(key))

    def _ended(self, key: str) -> tuple[Part, Row] | None:
        """None where the task is started again."""
        from distributed import KilledWorker

        running = self._running.pop(key)
        part, mw = running.part, running.model
        try:
            with self._reached():
                said = json.loads(running.future.result())
        except KilledWorker:  # Dask counts the workers, too, on which it waited for its turn
            if len(running.lives) < LIVES and running.submitted < SUBMITTED:
                self._start(key, running)
                return None
            row = Row(mw, Result(mw.workload, "failed", reason=_blame(running)))
        else:
            shipping.add_rows(part.store, said["rows"])
            result = worker.result_from_json(said["result"])
            row = Row(mw, result, nbytes_moved(mw.workload), said.get("copy_bandwidth"))
        part.done[mw.workload] = row.result
        part.release(mw)
        return part, row

    def _hear(self, event: tuple[float, str]) -> None:
        """Of a worker: it has begun a task, or which candidate it has started, or that it has ended. Called in Dask's
        thread."""
        about = json.loads(event[1])
        if running := self._running.get(about["task"]):
            running.lives[about["worker"]] = about["started"] and codec.schedule_from_json(about["started"])

    def _give_up(self) -> None:
        running, self._running = list(self._running.values()), {}
        with suppress(OSError, RuntimeError, TimeoutError):  # the scheduler may be gone
            self._client.unsubscribe_topic(self._id)
            self._client.cancel([r.future for r in running], force=True)
        with suppress(StoreError):  # the leases end by themselves
            for one in running:
                one.part.release(one.model)


def _blame(running: _Running) -> str:
    """Marks the candidates that ran when workers were lost; why the workload failed."""
    lost = [schedule for schedule in running.lives.values() if schedule is not None]
    for schedule in lost:
        running.part.store.attempt(*running.part.key(running.model), schedule)
    during = f", {len(lost)} of them while a candidate ran" if lost else ""
    return f"{len(running.lives)} workers were lost while they tuned it{during}: it is left out"
