"""Ranks candidates before they are compiled, by ridge regression on the measurements of the current search.

Compiling a candidate takes a second and timing it a millisecond, so the order of compilation decides how much a search
of fixed length can find. The model is deliberately small: it uses loop sizes, not code. It corrects what
`autotune.search.ranking` expects from other workloads by what was measured of this one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from autotune.search.ranking import Expected
from autotune.search.space import Candidate
from db.records import Schedule

MIN_OBSERVATIONS = 8
_RIDGE = 0.5


class CostModel:
    """Predicts log(seconds). `observe` adds a measurement. With fewer than MIN_OBSERVATIONS, `predict` returns what is
    `expected`, or zeros. starts: schedules that contain every possible variant and parameter."""

    def __init__(self, starts: Sequence[Schedule], expected: Expected | None = None) -> None:
        self._expected = expected or (lambda schedules: np.zeros(len(schedules)))
        self._variants = tuple(dict.fromkeys(s.variant for s in starts))
        self._params = tuple(dict.fromkeys(name for s in starts for name, _ in s.params))
        self._x: list[npt.NDArray[np.float64]] = []
        self._y: list[float] = []

    def observe(self, candidate: Candidate, seconds: float) -> None:
        self._x.append(self._features(candidate))
        self._y.append(math.log(seconds) - float(self._expected([candidate.schedule])[0]))

    def predict(self, candidates: Sequence[Candidate]) -> npt.NDArray[np.float64]:
        """log(seconds) of each candidate, up to a constant."""
        expected = self._expected([c.schedule for c in candidates])
        if len(self._y) < MIN_OBSERVATIONS or not candidates:
            return expected
        x, y = np.array(self._x), np.array(self._y)
        center = y.mean()
        # candidates slower than expected get less weight, because the ranking of fast ones matters
        weight = np.exp(-(y - y.min()))[:, None]
        normal = x.T @ (weight * x) + _RIDGE * np.eye(x.shape[1])
        beta = np.linalg.solve(normal, x.T @ (weight[:, 0] * (y - center)))
        predicted: npt.NDArray[np.float64] = np.array([self._features(c) for c in candidates]) @ beta + center
        return predicted + expected

    def _features(self, c: Candidate) -> npt.NDArray[np.float64]:
        """log2 of the candidate's sizes, their squares (most sizes have an optimum in the middle), its variant as
        one-hot flags, and counts of some opts."""
        s, params = c.sizes, dict(c.schedule.params)
        sizes = [
            s.body,
            s.threads,
            s.groups,
            s.grid,
            s.upcast,
            s.unroll,
            s.slices,
            *(params.get(p, 1) for p in self._params),
        ]
        logs = np.log2(np.array(sizes, np.float64).clip(min=1))
        ops = [o.op for o in c.schedule.opts or ()]
        flags = [float(c.schedule.variant == v) for v in self._variants]
        counts = [float(ops.count(op)) for op in ("PADTO", "SWAP", "TC", "THREAD")]
        return np.concatenate([[1.0], logs, logs**2 / 4, flags, counts])
