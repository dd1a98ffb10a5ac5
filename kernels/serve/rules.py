"""The rules of the packaged store that fit a workload, as schedules for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import log

from db.lookup import Lookup
from db.records import Schedule, Target, Workload
from db.rules import ANY_ARCH, Rule
from kernels import backends
from kernels.ops import registry
from kernels.serve import defaults
from kernels.serve.classes import classes


def rules(w: Workload, target: Target, lookup: Lookup) -> list[Rule]:
    """Those of the target's arch first, then those of the backend, then those of the backend that its GPUs share
    (`backends.Backend.kin`); of each those of the smallest class first. Reasoned rules come after all that were
    measured."""
    kinds = classes(w)
    found: list[tuple[bool, int, bool, int, Rule]] = []
    for far, backend in enumerate((target.backend, backends.find(target.backend).kin)):
        for rule in lookup.rules(backend, target.arch, kinds) if backend else ():
            found.append((rule.reasoned, far, rule.arch == ANY_ARCH, kinds.index(rule.kind), rule))
    return [rule for *_, rule in sorted(found, key=lambda f: f[:-1])]


def schedules(rule: Rule, w: Workload, device: str) -> Iterator[Schedule]:
    """The schedules of a rule for a workload, best first; those whose variant it does not have are left out. Parameters
    that a reasoned rule says nothing about are those of the default."""
    there = registry.variants(w, device)
    for schedule in rule.schedules:
        if schedule.variant in there:
            params = there[schedule.variant].params(w)
            yield adapted(_whole(schedule, w, device) if len(schedule.params) < len(params[0]) else schedule, params)


def adapted(schedule: Schedule, params: tuple[Mapping[str, int], ...]) -> Schedule:
    """The schedule with the nearest of the parameters that its variant has for a shape."""
    wanted = dict(schedule.params)
    if wanted in params:
        return schedule
    return replace(schedule, params=tuple(sorted(min(params, key=lambda p: _apart(p, wanted)).items())))


def _whole(schedule: Schedule, w: Workload, device: str) -> Schedule:
    start = next((s.params for s in defaults.defaults(w, device) if s.variant == schedule.variant), ())
    return replace(schedule, params=tuple(sorted({**dict(start), **dict(schedule.params)}.items())))


def _apart(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    return sum(abs(log((value + 1) / (b.get(name, value) + 1))) for name, value in a.items())
