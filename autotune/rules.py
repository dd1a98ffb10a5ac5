"""Computes rules from rows: per class of workloads the schedules with the lowest summed relative time, as CLBlast's
database chooses its defaults.

The candidates of a class are the schedules that won for one of its shapes, and the baselines of those; not what
tinygrad's heuristic schedules, which is another kernel on each shape. The relative time of a candidate on a shape is
its time over that of the shape's winner, where it was timed there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log

from db.codec import canonical_json, schedule_to_json
from db.records import Schedule, Target, Workload
from db.rules import ANY_ARCH, Rule
from kernels.ops import registry
from kernels.serve.classes import classes
from kernels.serve.rules import adapted

NOT_TIMED = 1.25
"""Relative time that counts for a shape on which a candidate was not timed. The worst that a neighbour's schedule costs
is more, and its mean less; so a candidate that was timed everywhere wins unless it is slow."""
WITHIN = {0: 1, 1: 2, 3: 4, 4: 5}
"""Level of `kernels.serve.classes` -> the level that is asked next, if that has all of its workloads."""
MOST = 3  # schedules of a rule: the first that applies to a shape serves it


@dataclass(frozen=True)
class Shape:
    """A workload that was tuned. seconds: of its winner. times: of all schedules that are known on it. losses: what
    `loss` has found."""

    workload: Workload
    target: Target
    seconds: float
    times: Mapping[Schedule, float]
    losses: dict[Schedule, float] = field(default_factory=dict, compare=False)

    def loss(self, schedule: Schedule) -> float:
        """The logarithm of the relative time of a schedule, as it would be served for this shape."""
        if (known := self.losses.get(schedule)) is None:
            known = self.losses[schedule] = log(_relative(schedule, self))
        return known


def computed(shapes: Sequence[Shape], only: Collection[str] | None = None) -> tuple[Rule, ...]:
    """The rules of all classes of these shapes, or of those in `only`; for each backend and, where it has several
    archs, for each of them. Those that say the same as that of the next larger class are left out."""
    archs: dict[str, set[str]] = {}
    for shape in shapes:
        archs.setdefault(shape.target.backend, set()).add(shape.target.arch)
    groups: dict[tuple[str, str, str], list[Shape]] = {}
    larger: dict[str, str] = {}
    for shape in shapes:
        kinds = classes(shape.workload)
        larger |= {kinds[i]: kinds[j] for i, j in WITHIN.items()}
        own = shape.target.backend, shape.target.arch
        for kind in (k for k in kinds if only is None or k in only):
            for arch in (ANY_ARCH, own[1]) if len(archs[own[0]]) > 1 else (ANY_ARCH,):
                groups.setdefault((own[0], arch, kind), []).append(shape)
    rules = {key: rule for key, group in sorted(groups.items()) if (rule := _rule(*key, group))}
    return tuple(rule for rule in rules.values() if not _says_the_same(rules.get(_next(rule, larger)), rule))


def ranked(group: Sequence[Shape]) -> list[tuple[float, Schedule]]:
    """The candidates of shapes of one class with their mean log relative time, the best first."""
    candidates = {s for shape in group for s in shape.times if s.opts is not None}
    found = [(_loss(s, group), s) for s in candidates]
    return sorted(found, key=lambda f: (f[0], canonical_json(schedule_to_json(f[1]))))


def _rule(backend: str, arch: str, kind: str, group: Sequence[Shape]) -> Rule | None:
    best = ranked(group)[:MOST]
    if not best:
        return None
    loss = float(f"{exp(best[0][0]):.4g}")
    return Rule(backend, arch, kind, tuple(s for _, s in best), len(group), loss)


def _next(rule: Rule, larger: Mapping[str, str]) -> tuple[str, str, str]:
    return rule.backend, rule.arch, larger.get(rule.kind, "")


def _says_the_same(general: Rule | None, rule: Rule) -> bool:
    return general is not None and general.schedules == rule.schedules


def _loss(schedule: Schedule, group: Sequence[Shape]) -> float:
    return sum(shape.loss(schedule) for shape in group) / len(group)


def _relative(schedule: Schedule, shape: Shape) -> float:
    seconds = shape.times.get(schedule)
    if seconds is None:
        seconds = next((shape.times[s] for s in _as_served(schedule, shape) if s in shape.times), None)
    return max(seconds / shape.seconds, 1.0) if seconds else NOT_TIMED


def _as_served(schedule: Schedule, shape: Shape) -> Iterator[Schedule]:
    there = registry.variants(shape.workload, shape.target.backend)
    if schedule.variant in there:
        yield adapted(schedule, there[schedule.variant].params(shape.workload))
