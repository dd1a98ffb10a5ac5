"""A device and a compiler that a test makes up: the tuner's runner and pool without processes, and without waiting."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autotune.trial.compiler import Job
from autotune.trial.compiler_child import Compiled
from autotune.trial.messages import DeviceInfo, Prepared, Timing
from autotune.trial.runner import PrepareError
from autotune.trial.validate import Verdict
from db.codec import schedule_digest
from db.records import Outcome, Schedule, Target, Workload
from support.renderers import CL

COMPILE_SECONDS = 0.5
TARGET = Target("CL", "made", "made up", 4)


@dataclass(frozen=True)
class Fate:
    """What becomes of a schedule. `seeds`: how many sets of inputs it computes rightly; `fault`: its outcome when it is
    compared with others, and from then on."""

    seconds: float = 1e-3
    compiles: Outcome = Outcome.OK
    seeds: int = 9
    fault: Outcome = Outcome.OK


def by_name(schedule: Schedule) -> Schedule:
    """The schedule with its loops named only: hand-chosen opts have no axis indices, and those of a search do."""
    opts = schedule.opts
    return replace(
        schedule, opts=None if opts is None else tuple(replace(o, axis=None) if o.range else o for o in opts)
    )


@dataclass(frozen=True)
class FakeProgram:
    """Stands for a compiled schedule; equal keys are programs that a device cannot tell apart."""

    schedule: Schedule
    key: str


World = Callable[[Schedule], Fate]


@dataclass
class FakeClock:
    """Stands for the module `time`: a second passes when it is told to, so that a budget is a number of candidates."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class FakePool:
    """Compiles one job after the other, COMPILE_SECONDS each; `compiled` lists them. `interrupt`: raise at that job.
    key: of a schedule's program."""

    world: World
    clock: FakeClock
    workers: int = 2
    compiled: list[Job] = field(default_factory=list)
    interrupt: int | None = None
    key: Callable[[Schedule], str] = lambda schedule: schedule_digest(by_name(schedule))

    def ready(self) -> None:
        pass

    def fill(self) -> None:
        """There is nothing to start."""

    def compile(self, jobs: Iterable[Job], deadline: float | None = None) -> Iterator[Compiled]:
        for job in jobs:
            if deadline and self.clock.now > deadline:
                return
            if self.interrupt is not None and len(self.compiled) >= self.interrupt:
                raise KeyboardInterrupt
            self.compiled.append(job)
            self.clock.now += COMPILE_SECONDS
            fate = self.world(job.schedule)
            ok = fate.compiles is Outcome.OK
            program: Any = FakeProgram(job.schedule, self.key(job.schedule)) if ok else None
            yield Compiled(fate.compiles, "" if ok else f"made up {fate.compiles}", program, COMPILE_SECONDS, job.key)

    @property
    def schedules(self) -> list[Schedule]:
        return [job.schedule for job in self.compiled]


@dataclass
class FakeRunner:
    """Validates and times as `world` says; each sample is off by up to `noise` of itself."""

    world: World
    noise: float = 0.0
    compares: Outcome = Outcome.OK
    refuses: bool = False
    faulted: set[Schedule] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def describe(self) -> DeviceInfo:
        return DeviceInfo(TARGET, CL, "event", ())

    def begin(self, workload: Workload, seed: int = 0) -> None:
        """Nothing takes time."""

    def prepare(self, workload: Workload, seed: int = 0) -> Prepared:
        if self.refuses:
            raise PrepareError("made up: no inputs")
        return Prepared(1, 1)

    def validate(self, program: FakeProgram, tolerance: float, *, seeds: int = 1, **_: object) -> Verdict:
        self.calls.append("validate")
        if self.world(program.schedule).seeds < seeds:
            return Verdict(Outcome.WRONG_RESULT, 0.5, 1.0, tolerance, "made up error")
        return Verdict(Outcome.OK, 1e-7, 1e-7, tolerance)

    def measure(
        self, program: FakeProgram, launches: int = 3, *, stop_above_seconds: float | None = None, **_: object
    ) -> Timing:
        self.calls.append("measure")
        if program.schedule in self.faulted:
            return Timing(self.world(program.schedule).fault, (), "made up fault")
        samples = tuple(self._sample(program) for _ in range(launches))
        if stop_above_seconds is not None and samples[0] > stop_above_seconds:
            return Timing(Outcome.SLOW, samples[:1], "made up: too slow")
        return Timing(Outcome.OK, samples)

    def compare(self, programs: Sequence[FakeProgram], rounds: int = 20, **_: object) -> tuple[Timing, ...]:
        self.calls.append("compare")
        faults = {self.world(p.schedule).fault for p in programs} - {Outcome.OK}
        self.faulted |= {p.schedule for p in programs if self.world(p.schedule).fault is not Outcome.OK}
        outcome = faults.pop() if faults else self.compares
        if outcome is not Outcome.OK:
            return (Timing(outcome, (), "made up"),) * len(programs)
        return tuple(Timing(Outcome.OK, tuple(self._sample(p) for _ in range(rounds))) for p in programs)

    def copy_bandwidth(self) -> float:
        return 1e10

    def _sample(self, program: FakeProgram) -> float:
        return self.world(program.schedule).seconds * self.random.uniform(1 - self.noise, 1 + self.noise)
