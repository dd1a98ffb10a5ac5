"""Stored rows <-> records. Not the JSON of other people's files: that is `exchange`, which trusts nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf, isfinite, isnan
from typing import Any

from db import codec
from db.errors import without_secrets
from db.records import Measurement, Outcome, Run, Schedule, Served, Stage, Target

NAME = re.compile(r"[A-Za-z0-9_.:+-]{1,128}")  # what run ids and kernel digests may be
TEXT_LENGTH = 1000  # of a command or a version


@dataclass(frozen=True)
class Recorded:
    """A measurement as the store holds it. Dates are ISO 8601 in UTC; `origin` is "local" or "imported"."""

    id: int
    created_at: str
    measurement: Measurement
    run: Run
    started_at: str
    origin: str

    @property
    def median_seconds(self) -> float:
        """Seconds a launch; raises IndexError where nothing was timed."""
        return quantile(self.measurement.samples, 0.5)


@dataclass(frozen=True)
class Winner:
    """What is served for one (workload, target, kernel digest), and the baselines that its run took beside it."""

    row: Recorded
    baselines: tuple[Recorded, ...]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def quantile(samples: Sequence[float], q: float) -> float:
    """The q-quantile of one or more samples, linear between neighbours (Hyndman and Fan's type 7, numpy's default)."""
    ordered = sorted(samples)
    whole, part = divmod(q * (len(ordered) - 1), 1)
    low, high = ordered[int(whole)], ordered[min(int(whole) + 1, len(ordered) - 1)]
    return low + (high - low) * part


def check(m: Measurement) -> None:
    """Raises ValueError for a measurement that no store should hold: the caller has a bug."""
    if not all(isfinite(s) and s >= 0 for s in m.samples):
        raise ValueError(f"samples must be finite seconds >= 0, saw {m.samples!r:.200}")
    if m.nbytes < 0:
        raise ValueError(f"nbytes must be >= 0, saw {m.nbytes!r}")
    if not NAME.fullmatch(m.kernel_digest):
        raise ValueError(f"kernel digest {m.kernel_digest!r:.200} does not match {NAME.pattern}")


def clean(run: Run) -> Run:
    """The run with its free text fit to be shown and exported. Raises ValueError for an impossible id or effort."""
    if not NAME.fullmatch(run.id):
        raise ValueError(f"run id {run.id!r:.200} does not match {NAME.pattern}")
    if run.beam_width < 0 or not 0 <= run.budget_seconds < inf:
        raise ValueError(f"need a beam width and finite seconds >= 0, saw {run.beam_width!r}, {run.budget_seconds!r}")
    versions = tuple(sorted((_printable(k), _printable(v)) for k, v in run.versions))
    return replace(run, command=_printable(without_secrets(run.command)), versions=versions)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:TEXT_LENGTH])


def to_columns(m: Measurement) -> dict[str, Any]:
    """The columns of `measurements` that hold the fact itself. A NaN error (NaN in the output) is stored as none."""
    p20, p50, p80 = (quantile(m.samples, q) if m.samples else None for q in (0.2, 0.5, 0.8))
    return {
        "kernel_digest": m.kernel_digest,
        "stage": m.stage.value,
        "outcome": m.outcome.value,
        "reason": m.reason,
        "median_seconds": p50,
        "p20_seconds": p20,
        "p80_seconds": p80,
        "samples": codec.canonical_json([float(s) for s in m.samples]),
        "nbytes": m.nbytes,
        "error": None if m.error is None or isnan(m.error) else m.error,
        "tolerance": m.tolerance,
        "clock": m.clock,
        "simulated": int(m.simulated),
    }


def recorded(row: Sequence[Any]) -> Recorded:
    """A row of the queries that return whole measurements."""
    workload, backend, arch, device, units, kernel_digest, schedule, id_, created_at, *fact = row
    stage, outcome, samples, nbytes, error, tolerance, reason, clock, simulated, *run, started_at, origin = fact
    run_id, command, beam_width, budget_seconds, versions = run
    measurement = Measurement(
        codec.workload_from_json(json.loads(workload)),
        Target(backend, arch, device, units),
        codec.schedule_from_json(json.loads(schedule)),
        kernel_digest,
        Stage(stage),
        Outcome(outcome),
        samples=tuple(json.loads(samples)),
        nbytes=nbytes,
        error=error,
        tolerance=tolerance,
        reason=reason,
        clock=clock,
        simulated=bool(simulated),
    )
    pairs = tuple(sorted(json.loads(versions).items()))
    return Recorded(
        id_, created_at, measurement, Run(run_id, command, beam_width, budget_seconds, pairs), started_at, origin
    )


def schedule(text: str) -> Schedule:
    return codec.schedule_from_json(json.loads(text))


def near(row: Sequence[Any], origin: str) -> Served:
    """A row of the queries for other devices and other shapes."""
    workload, backend, arch, device, units, text, seconds, *_ = row
    target = Target(backend, arch, device, units)
    return Served(codec.workload_from_json(json.loads(workload)), target, schedule(text), seconds, origin)
