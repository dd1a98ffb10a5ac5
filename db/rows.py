"""Stored rows <-> records. Not the JSON of other people's files: that is `exchange`, which trusts nothing."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf, isfinite, isnan
from typing import Any

from db import codec
from db.errors import without_secrets
from db.records import Measurement, Outcome, Run, Schedule, Served, Stage, Target, Workload

NAME = re.compile(r"[A-Za-z0-9_.:+-]{1,128}")  # what run ids and kernel digests may be
TEXT_LENGTH = 1000  # of a command or a version


@dataclass(frozen=True)
class Recorded:
    """A measurement as the store holds it. Dates are ISO 8601 in UTC; `origin` is the run's: "local", "imported" or
    "packaged"."""

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


Timing = tuple[Workload, Schedule, float]
"""What a schedule of a workload took, in seconds."""


@dataclass(frozen=True)
class Winner:
    """What is served for one (workload, target, kernel digest), and the baselines that its run took beside it."""

    row: Recorded
    baselines: tuple[Recorded, ...]


@dataclass(frozen=True)
class StoredRun:
    """A run as the store holds it, with how many measurements it has and how many schedules it accepted."""

    run: Run
    started_at: str
    origin: str
    measurements: int
    accepted: int


def subject(row: Sequence[Any]) -> tuple[Workload, Target, str]:
    """A row of the query for subjects. Raises ValueError for one that no version of ours wrote."""
    workload, workload_digest, *target, kernel_digest = row
    _all(str, kernel_digest)
    return _workload(workload, workload_digest), _target(*target), kernel_digest


def stored_run(row: Sequence[Any]) -> StoredRun:
    """A row of the query for runs. Raises ValueError for one that no version of ours wrote."""
    *run, started_at, origin, measurements, accepted = row
    _all(str, started_at, origin)
    return StoredRun(_run(run), started_at, origin, measurements, accepted)


def _run(columns: Sequence[Any]) -> Run:
    id_, command, beam_width, budget_seconds, versions = columns
    _all(str, id_, command)
    _all(int, beam_width)
    pairs = tuple(sorted(parsed(versions, dict).items()))
    _all(str, *(value for _, value in pairs))
    return Run(id_, command, beam_width, number(budget_seconds), pairs)


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
        "reason": m.reason.replace("\0", "\N{REPLACEMENT CHARACTER}"),  # PostgreSQL's text has no NUL
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


def run_columns(run: Run, started_at: str) -> dict[str, Any]:
    """The columns of `runs` that say what a run was asked."""
    return {**vars(run), "versions": codec.canonical_json(dict(run.versions)), "started_at": started_at}


def recorded(row: Sequence[Any]) -> Recorded:
    """A row of the queries that return whole measurements. Raises ValueError for one that no version of ours wrote."""
    workload_digest, target_digest, kernel_digest, workload, *target, schedule_, schedule_digest, id_ = row[:11]
    created_at, stage, outcome, samples, nbytes, error, tolerance, reason, clock, simulated, *run = row[11:]
    *of_run, started_at, origin = run
    _all(str, kernel_digest, created_at, reason, clock, started_at, origin)
    _all(int, id_, nbytes, simulated)
    measurement = Measurement(
        _workload(workload, workload_digest),
        _target(*target, target_digest),
        schedule(schedule_, schedule_digest),
        kernel_digest,
        Stage(stage),
        Outcome(outcome),
        samples=tuple(number(s) for s in parsed(samples, list)),
        nbytes=nbytes,
        error=error if error is None or error == inf else number(error),
        tolerance=None if tolerance is None else number(tolerance),
        reason=reason,
        clock=clock,
        simulated=bool(simulated),
    )
    check(measurement)
    return Recorded(id_, created_at, measurement, _run(of_run), started_at, origin)


Answer = tuple[Served, float]
"""What may serve, and the error of its result."""


def kept(row: Sequence[Any], kernel: str, workload: Workload, target: Target, origin: str) -> Answer:
    """A row of the query for what is kept of a kernel. Raises ValueError for one that must not be served."""
    answer, digest = row
    if digest != codec.digest(f"{kernel} {answer}"):
        raise ValueError(f"{answer!r:.100} is not what its digest says")
    fact = parsed(answer, list)
    if len(fact) != 4:
        raise ValueError(f"{answer!r:.100} is no schedule with its time, tolerance and error")
    return _answer(codec.schedule_from_json(fact[0]), fact[1:], workload, target, origin)


def to_served(row: Sequence[Any], kernel: str, workload_digest: str) -> tuple[str, str, str]:
    """The row of `served` for a row of the query for a workload. Raises ValueError for one that must not be served."""
    workload, found, schedule_digest, *fact = row
    _hashed(workload, workload_digest)
    schedule(found, schedule_digest)
    answer = codec.canonical_json([json.loads(found), *map(number, fact)])
    return kernel, answer, codec.digest(f"{kernel} {answer}")


def exact(row: Sequence[Any], asked: str, workload: Workload, target: Target, origin: str) -> Answer:
    """A row of the query for a workload, whose digest was `asked`, on a target. Raises ValueError for one that must not
    be served, as where a damaged index led to another workload's."""
    text, found, digest, *fact = row
    if not isinstance(text, str) or codec.digest(text) != asked:
        raise ValueError(f"{text!r:.100} is not the workload that was asked for")
    return _answer(schedule(found, digest), fact, workload, target, origin)


def near(row: Sequence[Any], origin: str) -> Answer:
    """A row of the queries for other devices and other shapes. Raises ValueError for one that must not be served."""
    workload, workload_digest, *target, target_digest, found, digest = row[:9]
    where = _workload(workload, workload_digest), _target(*target, target_digest)
    return _answer(schedule(found, digest), row[9:], *where, origin)


def _answer(found: Schedule, fact: Sequence[Any], workload: Workload, target: Target, origin: str) -> Answer:
    seconds, tolerance, error = map(number, fact)
    if not error <= tolerance:
        raise ValueError(f"error {error!r} of a tolerance of {tolerance!r}")
    return Served(workload, target, found, seconds, origin), error


def timing(row: Sequence[Any]) -> Timing:
    """A row of the query for timings. Raises ValueError for one that no version of ours wrote."""
    workload, workload_digest, schedule_, schedule_digest, seconds = row
    return _workload(workload, workload_digest), schedule(schedule_, schedule_digest), number(seconds)


def schedule(text: object, digest: object) -> Schedule:
    """Raises ValueError, as for a text that is not what its digest says."""
    return codec.schedule_from_json(_hashed(text, digest))


def number(value: object) -> float:
    """Raises ValueError for what is no finite number: a column of SQLite holds anything."""
    if type(value) not in (int, float) or not isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"{value!r:.100} where a number belongs")
    return value  # type: ignore[return-value]


def _workload(text: object, digest: object) -> Workload:
    return codec.workload_from_json(_hashed(text, digest))


@functools.lru_cache(maxsize=64)  # of a few devices, in row after row
def _target(backend: object, arch: object, device: object, compute_units: object, digest: object) -> Target:
    names = {"backend": backend, "arch": arch, "device": device, "compute_units": compute_units}
    found = codec.target_from_json(names)
    if codec.target_digest(found) != digest:
        raise ValueError(f"the target {found} is not what its digest says")
    return found


def _hashed(text: object, digest: object) -> Any:
    """The value of JSON that has this digest."""
    if not isinstance(text, str) or codec.digest(text) != digest:
        raise ValueError(f"{text!r:.100} is not what its digest says")
    return parsed(text, dict)


def parsed(text: object, kind: type) -> Any:
    """The value of a JSON text, of this type. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"{text!r:.100} where JSON belongs")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"{text!r:.100}… is nested too deeply") from None
    if not isinstance(value, kind):
        raise ValueError(f"{text!r:.100} where a JSON {kind.__name__} belongs")
    return value


def _all(kind: type, *values: object) -> None:
    for value in values:
        if type(value) is not kind:
            raise ValueError(f"{value!r:.100} where {'a text' if kind is str else 'a whole number'} belongs")
