"""What the measurements of other workloads say about the speed of a schedule that was never compiled.

A ridge regression for each op and variant, on the parameters, the opts and the shape: the logarithm of a schedule's
seconds relative to the fastest of its workload. It looks at numbers that are known without lowering a kernel, so that
thousands of schedules are ranked in milliseconds where compiling one takes a second.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from db.records import Schedule, Workload
from db.rows import Timing
from kernels.formats import FORMATS

Doubles = npt.NDArray[np.float64]
Expected = Callable[[Sequence[Schedule]], Doubles]
"""Schedules of one workload -> log(seconds) of each, up to a constant. The smaller, the faster."""

MIN_ROWS = 40  # of an op's variant; with fewer there is no model of it
MIN_WORKLOADS = 2
_RIDGE = 3.0
_FAR = 100.0  # steps to a variant of which no schedule is known
_MOST = 4.0  # a schedule that is exp(4) times slower than the fastest is just slow
_OPTS = ("UPCAST", "UNROLL", "LOCAL", "GROUP", "GROUPTOP", "THREAD", "TC", "SWAP")


@dataclass(frozen=True)
class _Model:
    """params: the names of the variant's parameters. mean, scale, weights: of the features of `_features`. average:
    of what schedules of the variant took."""

    params: tuple[str, ...]
    mean: Doubles
    scale: Doubles
    weights: Doubles
    average: float

    def predict(self, w: Workload, schedules: Sequence[Schedule]) -> Doubles:
        x = np.array([_features(w, s, self.params) for s in schedules])
        found: Doubles = self.average + (x - self.mean) / self.scale @ self.weights
        return found


class Ranking:
    """Models by op and variant."""

    def __init__(self, models: dict[tuple[str, str], _Model]) -> None:
        self._models = models

    @classmethod
    def fit(cls, timings: Iterable[Timing]) -> Self:
        """Learns from timings of one target."""
        rows = list(timings)
        fastest: dict[Workload, float] = {}
        for w, _, seconds in rows:
            fastest[w] = min(seconds, fastest.get(w, math.inf))
        groups = defaultdict(list)
        for w, s, seconds in rows:
            groups[w.op, s.variant].append((w, s, min(math.log(seconds / fastest[w]), _MOST)))
        enough = {
            key: found
            for key, found in groups.items()
            if len(found) >= MIN_ROWS and len({w for w, _, _ in found}) >= MIN_WORKLOADS
        }
        return cls({key: _fit(found) for key, found in enough.items()})

    def of(self, w: Workload) -> Expected | None:
        """None if nothing is known of the workload's op."""
        known = {variant: model for (op, variant), model in self._models.items() if op == w.op}
        if not known:
            return None
        unknown = float(np.mean([model.average for model in known.values()]))

        def expected(schedules: Sequence[Schedule]) -> Doubles:
            found = np.full(len(schedules), unknown)
            for variant, model in known.items():
                if at := [i for i, s in enumerate(schedules) if s.variant == variant]:
                    found[at] = model.predict(w, [schedules[i] for i in at])
            return found

        return expected


def around(known: Iterable[Schedule]) -> Expected:
    """What to expect where nothing was measured: a schedule is the slower, the more its parameters are doubled or
    halved from those of a known schedule of its variant."""
    numbers: dict[str, list[dict[str, int]]] = defaultdict(list)
    for s in known:
        numbers[s.variant].append(dict(s.params))

    def expected(schedules: Sequence[Schedule]) -> Doubles:
        return np.array([min((_steps(dict(s.params), n) for n in numbers[s.variant]), default=_FAR) for s in schedules])

    return expected


def _steps(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    return sum(abs(math.log2((1 + a[name]) / (1 + b.get(name, 0)))) for name in a)


def promising(schedules: Sequence[Schedule], expected: Expected | None, count: int) -> list[Schedule]:
    """The `count` schedules that are expected to be the fastest, the fastest first; none where nothing is expected."""
    if expected is None or not schedules:
        return []
    return [schedules[i] for i in np.argsort(expected(schedules), kind="stable")[:count]]


def _fit(rows: Sequence[tuple[Workload, Schedule, float]]) -> _Model:
    params = tuple(sorted({name for _, s, _ in rows for name, _ in s.params}))
    x = np.array([_features(w, s, params) for w, s, _ in rows])
    y = np.array([slowness for _, _, slowness in rows])
    mean, scale, average = x.mean(0), np.maximum(x.std(0), 1e-9), float(y.mean())
    scaled = (x - mean) / scale
    # the order of fast schedules matters, that of slow ones does not
    weight = np.exp(-y)[:, None]
    normal = scaled.T @ (weight * scaled) + _RIDGE * np.eye(x.shape[1])
    return _Model(params, mean, scale, np.linalg.solve(normal, scaled.T @ (weight[:, 0] * (y - average))), average)


def _features(w: Workload, s: Schedule, params: Sequence[str]) -> Doubles:
    """log2 of the schedule's numbers, their products with each other, and with those of the workload."""
    chosen = dict(s.params)
    amounts = dict.fromkeys(_OPTS, 1.0)
    for opt in s.opts or ():
        if opt.op in amounts:
            amounts[opt.op] *= max(2.0, float(opt.arg)) if isinstance(opt.arg, int) else 2.0
    of_schedule = [math.log2(1 + chosen.get(name, 0)) for name in params]
    of_schedule += [math.log2(amounts[op]) for op in _OPTS]
    format = FORMATS.get(w.format)
    bits = 8 * format.nbytes / format.block if format else 32.0
    of_workload = [math.log2(max(1, x)) for x in (w.n, w.k, w.m, bits)]
    v, u = np.array(of_schedule), np.array(of_workload)
    products = np.outer(v, v)[np.triu_indices(len(v))]
    return np.concatenate([v, products, np.outer(v, u).reshape(-1)])
