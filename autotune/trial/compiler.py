"""Compiles candidates in parallel worker processes. Never opens a device, and idles without using the processor.

Own processes instead of ProcessPoolExecutor: that breaks wholly when a worker dies, and cannot end a running job.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

from autotune.settings import default_workers
from autotune.tinygrad_api.lower import MAX_UOPS, codegen_context
from autotune.trial.child import POLL_SECONDS, Child, ChildFault
from autotune.trial.compiler_child import Compiled, Setup
from db.errors import AutotuneError
from db.records import Outcome, Schedule, Workload
from kernels.tinygrad.renderers import Renderer

START_SECONDS = 60.0
FAILED_STARTS = 3  # one after the other: then no worker will ever start
_WORKER = "autotune.trial.compiler_child"
_ENV = {"ALLOW_DEVICE_USAGE": "0"}


class CompilePoolError(AutotuneError, RuntimeError):
    """The workers cannot run at all: the message has the last line that one printed."""


@dataclass(frozen=True)
class Job:
    """A candidate to compile; `key` is the caller's name for it. The limits are the pool's where they are None."""

    key: Hashable
    workload: Workload
    schedule: Schedule
    max_uops: int | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True)
class _Task:
    """What a worker is at: a job, or None while it starts."""

    job: Job | None
    start: float
    limit_seconds: float


class CompilePool:
    """`workers` processes that compile for one renderer; a context manager.

    A job that takes longer than `timeout_seconds` is a TIMEOUT, one whose worker dies or outgrows
    `memory_limit_nbytes` of resident memory a CRASH: that worker is replaced and the other jobs go on. The limit
    covers the worker, not a compiler that it runs: max_uops and the timeout bound that one. A job whose worker was
    killed from outside is tried once more.
    """

    def __init__(
        self,
        renderer: Renderer,
        workers: int | None = None,
        *,
        memory_limit_nbytes: int = 2 << 30,
        timeout_seconds: float = 10.0,
        max_uops: int = MAX_UOPS,
    ) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers={workers}: at least one process must compile")
        self._setup = Setup(renderer, codegen_context(), max_uops)
        self.workers = workers or default_workers()
        self._memory_limit_nbytes, self._timeout_seconds = memory_limit_nbytes, timeout_seconds
        self._idle: list[Child] = []
        self._running: dict[Child, _Task] = {}
        self._failed_starts = 0
        self._ready = False

    def __enter__(self) -> Self:
        """Starts the workers and returns at once: they import while the caller goes on."""
        self.fill()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._drop_running()
        for child in self._idle:
            child.close()
        self._idle = []

    def compile(self, jobs: Iterable[Job], deadline: float | None = None) -> Iterator[Compiled]:
        """Each job's result as it completes, up to `deadline` (of time.monotonic); nothing runs any more when the
        iterator is exhausted or closed.

        Raises CompilePoolError if workers cannot start.
        """
        waiting, killed = deque(jobs), set[Hashable]()
        try:
            while (waiting or self._running) and not (deadline and time.monotonic() > deadline):
                if waiting:
                    self.fill()
                while waiting and self._idle:
                    self._give(waiting)
                for job, done in self._collect():
                    if done is not None:
                        yield done
                    elif job.key in killed:
                        yield Compiled(Outcome.CRASH, "its worker was killed from outside, twice", None, 0.0, job.key)
                    else:
                        killed.add(job.key)
                        waiting.append(job)
        finally:  # the caller stopped early: what still runs is of no use
            self._drop_running()

    def fill(self) -> None:
        """Starts the workers that are missing, and returns at once."""
        while len(self._idle) + len(self._running) < self.workers:
            child = Child(_WORKER, env=_ENV, memory_limit_nbytes=self._memory_limit_nbytes)
            try:
                child.send(self._setup)
            except ChildFault as e:
                self._not_started(e)
            else:
                self._running[child] = _Task(None, time.monotonic(), START_SECONDS)

    def ready(self) -> None:
        """Waits, once, until every worker has started. One that takes the place of another is not waited for: it
        starts while the device works. Raises CompilePoolError if workers cannot start."""
        while not self._ready:
            self.fill()
            for _ in self._collect():  # nothing but workers that start is running
                pass
            self._ready = not self._running

    def _not_started(self, fault: ChildFault) -> None:
        """Another takes its place, up to FAILED_STARTS in a row. Raises CompilePoolError."""
        self._failed_starts += 1
        if self._failed_starts >= FAILED_STARTS:
            raise CompilePoolError(f"a compile worker does not start: {fault}") from fault

    def _give(self, waiting: deque[Job]) -> None:
        child, job = self._idle.pop(), waiting.popleft()
        try:
            child.send((job.workload, job.schedule, job.max_uops or self._setup.max_uops))
        except ChildFault:  # it died while idle, which is no fault of the job
            waiting.appendleft(job)
        else:
            self._running[child] = _Task(job, time.monotonic(), job.timeout_seconds or self._timeout_seconds)

    def _collect(self) -> Iterator[tuple[Job, Compiled | None]]:
        """Waits for the first of: an answer, a worker that is ready, a limit. None: the worker was killed from
        outside."""
        deadline = min((t.start + t.limit_seconds for t in self._running.values()), default=0.0)
        pause = max(0.0, min(POLL_SECONDS, deadline - time.monotonic()))
        ready = wait([child.connection for child in self._running], pause)
        for child, task in list(self._running.items()):
            try:
                if child.connection not in ready:
                    child.check(task.start + task.limit_seconds, task.limit_seconds)
                    continue
                answer = child.receive(0)
            except ChildFault as e:
                del self._running[child]
                if task.job is None:
                    self._not_started(e)
                elif e.from_outside:
                    yield task.job, None
                else:
                    seconds = time.monotonic() - task.start
                    yield task.job, Compiled(e.outcome, str(e), None, seconds, task.job.key)
                continue
            del self._running[child]
            self._settle(child)
            if task.job is None:
                self._failed_starts = 0
            else:
                yield task.job, replace(answer, key=task.job.key)

    def _settle(self, child: Child) -> None:
        """tinygrad's caches grow with every kernel; a worker leaves before that costs a job its memory."""
        if child.rss_nbytes() > self._memory_limit_nbytes // 2:
            child.close()
        else:
            self._idle.append(child)

    def _drop_running(self) -> None:
        for child in self._running:
            child.kill()
        self._running = {}
