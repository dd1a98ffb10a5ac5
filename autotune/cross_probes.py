"""Times on each tuned workload what the other workloads of its class were tuned to, as far as no search has.

Rules are computed from such times (`autotune.rules`). A search tries the schedules of a few neighbours that were tuned
before it, so that what is tuned first lacks most. A probe here costs a second.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autotune.device_lock import alone
from autotune.session import Session, is_current
from autotune.trial.compiler import CompilePool
from autotune.trial.pipeline import Pipeline
from autotune.trial.runner import PrepareError, RunnerError
from db.codec import schedule_digest
from db.records import Schedule, Stage, Target, Workload
from db.store import Store, Winner
from kernels.ops import registry
from kernels.serve.classes import classes
from kernels.serve.rules import adapted

MOST = 8  # schedules of a class, those that won for most of its workloads
SLACK = 2.0  # a probe is cut short when a launch takes this many times the winner's


@dataclass(frozen=True)
class Probed:
    """How many schedules were timed on a workload, of those that were missing."""

    workload: Workload
    timed: int
    missing: int


def missing(store: Store, target: Target) -> dict[Winner, list[Schedule]]:
    """The schedules that are to be timed on each workload that was tuned on a target."""
    served = [(w.row.measurement, w) for w in store.finals(target)]
    winners = [w for m, w in served if is_current(m.workload, m.kernel_digest)]
    won: dict[str, Counter[Schedule]] = {}
    for w in winners:
        m = w.row.measurement
        if m.schedule.opts is not None:
            won.setdefault(_class(m.workload), Counter())[m.schedule] += 1
    return {w: found for w in winners if (found := _missing(store, w, won.get(_class(w.row.measurement.workload), {})))}


def probe(session: Session, command: str, seconds: float) -> Iterator[Probed]:
    """Times and stores what is missing, for at most some `seconds`. Raises StoreError, CompilePoolError."""
    deadline = time.monotonic() + seconds
    todo = missing(session.store, session.info.target)
    if not todo:
        return
    run = session.run(command, 0, 0.0)
    session.store.start_run(run)
    with CompilePool(session.info.renderer, session.settings.workers) as pool, alone(session.choice.device):
        for winner, schedules in todo.items():
            if time.monotonic() > deadline:
                return
            w = winner.row.measurement.workload
            try:
                session.runner.prepare(w)
                pipeline = Pipeline(session.runner, pool, w)
                trials = [pipeline.validate(t) for t in list(pipeline.compile(schedules))]
                trials = [pipeline.measure(t, SLACK * winner.row.median_seconds) for t in trials]
            except (PrepareError, RunnerError):
                continue
            session.store.record(run.id, [t.measurement(Stage.PROBE) for t in trials])
            yield Probed(w, sum(t.timed for t in trials), len(schedules))


def _class(w: Workload) -> str:
    return classes(w)[-1]


def _missing(store: Store, winner: Winner, won: Mapping[Schedule, int]) -> list[Schedule]:
    m = winner.row.measurement
    key = m.workload, m.target, m.kernel_digest
    there = registry.variants(m.workload, m.target.backend)
    best = sorted(won, key=lambda s: (-won[s], schedule_digest(s)))[:MOST]
    fit = dict.fromkeys(adapted(s, there[s.variant].params(m.workload)) for s in best if s.variant in there)
    known = store.timings(*key).keys() | store.known_bad(*key).keys()
    return [s for s in fit if schedule_digest(s) not in known]
