"""A tuner over a made-up device and a real store, and what becomes of its candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.tune import Progress, Result, Tuner
from db.codec import workload_digest
from db.records import Measurement, Run, Schedule, Stage, Workload
from db.store import Store
from kernels.serve.defaults import defaults, heuristic
from support.fake_tuning import FakeClock, FakePool, FakeRunner, Fate, World, by_name
from support.store_rows import RUN

W = Workload("linear", "Q8_0", 48, 64)
HEURISTIC, DEFAULTS = heuristic(W, "CL"), defaults(W, "CL")
QUICK = replace(RUN, budget_seconds=16.0, beam_width=2)  # 27 candidates


def world(fates: Callable[[Schedule], Fate | None] | None = None, tuned: float = 0.5e-3) -> World:
    """Schedules with opts are twice as fast as the baselines, unless `fates` says otherwise."""

    def fate(schedule: Schedule) -> Fate:
        special = fates(schedule) if fates else None
        return special or Fate(tuned if schedule.opts and by_name(schedule) not in DEFAULTS else 1e-3)

    return fate


def has(schedule: Schedule, op: str) -> bool:
    return any(o.op == op for o in schedule.opts or ())


class First:
    """Gives `fate` to the first schedule tried that is `chosen`, by default one with an UPCAST, and to no other."""

    def __init__(self, fate: Fate, chosen: Callable[[Schedule], bool] = lambda schedule: has(schedule, "UPCAST")):
        self.fate, self.chosen = fate, chosen
        self.schedule: Schedule | None = None

    def __call__(self, schedule: Schedule) -> Fate | None:
        if self.schedule is None and self.chosen(schedule):
            self.schedule = schedule
        return self.fate if schedule == self.schedule else None


class Bench:
    """A tuner over fakes and a real store; a second one over the same store is a later run."""

    def __init__(self, path: Path, clock: FakeClock, world: World, run: Run = QUICK, **runner: Any):
        self.store, self.pool, self.runner = Store.open(path), FakePool(world, clock), FakeRunner(world, **runner)
        self.seen: list[Progress] = []
        self.run = run
        self.tuner = Tuner(self.store, self.runner, self.pool, run, self.seen.append, heuristic=True)  # type: ignore[arg-type]

    def tune(self, w: Workload = W) -> Result:
        return self.tuner.tune(w)

    def rows(self, *stages: Stage, w: Workload = W) -> list[Measurement]:
        found = [r.measurement for r in self.store.measurements(workload_digest(w)) if r.run.id == self.run.id]
        return [m for m in found if not stages or m.stage in stages]
