"""What benches over packaged rows share: what would be served without a row, and how schedules compare. Not a bench
itself."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autotune.pack import Packed, shape
from autotune.render import micros, workload_name
from autotune.rules import Shape, computed
from autotune.tinygrad_api.lower import Program
from autotune.trial import statistics
from autotune.trial.compiler import CompilePool, Job
from autotune.trial.pipeline import BASELINE_SECONDS, BASELINE_UOPS
from autotune.trial.runner import PrepareError, Runner, RunnerError
from db.codec import digest
from db.queries import distance
from db.records import Measurement, Schedule, Served, Target, Workload
from db.rules import Rule
from kernels.serve import sink
from kernels.serve.resolution import Resolution, look_up

ROUNDS = 12
SAME = 1.0


class Without:
    """Answers a lookup from all packed rows but those of one workload, in memory; rules are computed without it.
    shapes: those of the rows."""

    def __init__(self, packed: Packed, shapes: Sequence[Shape], without: Workload) -> None:
        self._rows = [m for row in packed.rows if (m := row.final.measurement).workload != without]
        self._shapes = [s for s in shapes if s.workload != without and s.workload.op == without.op]
        self._reasoned = [rule for rule in packed.rules if rule.reasoned]

    def exact(self, w: Workload, target: Target, kernel_digest: str) -> Served | None:
        return None

    same_arch = exact

    def nearest(self, w: Workload, target: Target, kernel_digest: str, within: float = math.inf) -> Served | None:
        mine = [m for m in self._rows if (m.target.backend, m.target.arch) == (target.backend, target.arch)]
        for some in ([m for m in mine if m.target == target], mine):
            near = [(far, i) for i, m in enumerate(some) if (far := distance(m.workload, w)) <= within]
            if near and (found := min(near))[0] < math.inf:
                m = some[found[1]]
                return Served(m.workload, m.target, m.schedule, statistics.median(m.samples), "packaged")
        return None

    def rules(self, backend: str, arch: str, kinds: Sequence[str]) -> tuple[Rule, ...]:
        every = (*computed(self._shapes, kinds), *self._reasoned)
        return tuple(r for r in every if r.backend == backend and r.arch in (arch, "") and r.kind in kinds)

    def found_wrong(self, w: Workload, target: Target, kernel_digest: str) -> frozenset[str]:
        return frozenset()


@dataclass(frozen=True)
class Asked:
    """Schedules of one workload to compare, by name; `step` gave the one called "predicted"."""

    workload: Workload
    step: str
    schedules: dict[str, Schedule]


def mine(packed: Packed, target: Target, op: str | None = None) -> list[Measurement]:
    """The packed rows of a target, and of an op if one is given. The order is that of a hash, so that the first of them
    are of all kinds."""
    found = [row.final.measurement for row in packed.rows]
    wanted = [m for m in found if m.target == target and op in (None, m.workload.op)]
    return sorted(wanted, key=lambda m: digest(workload_name(m.workload)))


def predicted(
    packed: Packed, rows: Sequence[Measurement], target: Target, renderer: Any
) -> Iterator[tuple[Measurement, Resolution]]:
    """What would serve the workload of each row on a target without the row."""
    shapes = [shape(row) for row in packed.rows]
    for m in rows:
        yield m, _predicted(Without(packed, shapes, m.workload), m.workload, target, renderer)


def _predicted(lookup: Any, w: Workload, target: Target, renderer: Any) -> Resolution:
    return look_up(w, target, lookup, "on", sink.buildable(renderer))


def compared(
    runner: Runner, pool: CompilePool, asked: Iterator[Asked], deadline: float
) -> Iterator[tuple[Asked, dict[str, float]]]:
    """Median seconds of each named schedule, measured in turn, of the workloads that can be measured up to `deadline`
    (of time.monotonic)."""
    while time.monotonic() < deadline and (some := list(itertools.islice(asked, 2 * pool.workers))):
        jobs = {(a.workload, s): None for a in some for s in a.schedules.values()}
        compiled = pool.compile([Job(key, *key, BASELINE_UOPS, BASELINE_SECONDS) for key in jobs], deadline)
        programs = {done.key: done.program for done in compiled if done.program is not None}
        for a in some:
            there = {name: programs[a.workload, s] for name, s in a.schedules.items() if (a.workload, s) in programs}
            if len(there) == len(a.schedules) and (times := _times(runner, a.workload, there)):
                yield a, times


def _times(runner: Runner, w: Workload, programs: Mapping[str, Program]) -> dict[str, float]:
    """Median seconds by name; of programs that are one and the same all SAME. Empty where something failed."""
    distinct = list({p.key: p for p in programs.values()}.values())
    if not distinct[1:]:
        return dict.fromkeys(programs, SAME)
    try:
        runner.prepare(w)
        timings = runner.compare(distinct, ROUNDS)
    except (PrepareError, RunnerError):
        return {}
    medians = {p.key: statistics.median(t.samples) for p, t in zip(distinct, timings, strict=True) if t.samples}
    return {name: medians[p.key] for name, p in programs.items()} if len(medians) == len(distinct) else {}


def shown(seconds: float) -> str:
    return "same" if seconds == SAME else micros(seconds)


def described(a: Asked) -> dict[str, Any]:
    return {**asdict(a.workload), "step": a.step}


def mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan
