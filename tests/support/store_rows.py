"""Small records for tests of the store, each with one thing changed by keyword."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from db.records import Measurement, Opt, Outcome, Run, Schedule, Stage, Target, Workload
from db.store import Store

KERNEL = "ab" * 32
WORKLOAD = Workload("linear", "Q4_K", 4096, 4096)
TARGET = Target("METAL", "Apple9", "Apple M3 Max", 40)
OTHER_TARGET = Target("CUDA", "sm_90", "NVIDIA H100", 132)
RUN = Run("run1", "autotune sweep model.gguf", 4, 60.0, (("tinygrad", "0.14.0"),))


def schedule(name: str = "factored", *sizes: int) -> Schedule:
    return Schedule(name, (("rows", 2),), tuple(Opt("LOCAL", 0, size, "1") for size in sizes))


def fact(**changes: Any) -> Measurement:
    """A final that may be served, except for `changes`."""
    samples = (2e-5, 1e-5, 4e-5)
    final = Measurement(WORKLOAD, TARGET, schedule(), KERNEL, Stage.FINAL, Outcome.OK, samples, 10**7, 1e-7, 1e-5)
    return replace(final, **{"clock": "event", **changes})


def opened(path: Path, *facts: Measurement, run: Run = RUN) -> Store:
    """A store with one run, which recorded `facts` one after the other."""
    store = Store.open(path)
    store.start_run(run)
    for one in facts:
        store.record(run.id, [one])
    return store
