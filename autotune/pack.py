"""Builds the store that travels in the package from files of results: `autotune pack db/rows/*.json -o FILE`.

The same inputs give the same bytes: rows are sorted, nothing says when they were packed. What may travel is what an
export may hold (`db.exchange`): accepted rows whose numerics were verified, with the run that they come from. Of
several rows of a workload, target and kernel source the newest is kept; those of another source than the present are
left out. They count for rules, which are guesses, where nothing newer is known of their workload and target.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune import transfer
from autotune.claims import unfit
from autotune.rules import Shape, computed
from autotune.session import missing_kernel
from db import codec, payload
from db.exchange import ExchangeError, write_sqlite
from db.files import regular_size
from db.foreign import MAX_NBYTES
from db.payload import Fact, Payload
from db.records import Measurement, Run, Schedule, Stage, Target
from db.rows import quantile
from db.rules import Rule
from kernels import backends
from kernels.ops.registry import kernel_digest

STALE = "of another version of the kernels, but count for rules; `autotune retune` on the device replays them"


@dataclass(frozen=True)
class Row:
    """An accepted schedule with its baselines, the seconds of others on its workload, and the run that found it."""

    final: Fact
    baselines: tuple[Fact, ...]
    others: dict[Schedule, float]
    run: Run
    started_at: str

    @property
    def target(self) -> Target:
        return self.final.measurement.target

    @property
    def subject(self) -> tuple[str, str, str]:
        m = self.final.measurement
        return codec.target_digest(m.target), codec.workload_digest(m.workload), m.kernel_digest


@dataclass(frozen=True)
class Packed:
    """What is packed: rows by target and workload, and rules. left_out: reason -> how many rows."""

    rows: tuple[Row, ...]
    rules: tuple[Rule, ...]
    left_out: Counter[str]


def pack(paths: Sequence[str]) -> Packed:
    """What stores and files of results give together. Raises ExchangeError, StoreError or FileError for an input that
    cannot be read, and ExchangeError for two that contradict each other."""
    payloads = [_parsed(path) for path in paths]
    _check_runs(payloads)
    newest: dict[tuple[str, str, str], Row] = {}
    for row in sorted((row for p in payloads for row in _rows(p)), key=_age):
        newest[row.subject] = row
    reasons = {subject: _why_not(row.final.measurement) for subject, row in newest.items()}
    rows = tuple(newest[subject] for subject in sorted(newest) if reasons[subject] is None)
    of_rules = {row.subject[:2]: row for subject, row in newest.items() if reasons[subject] == STALE}
    of_rules |= {row.subject[:2]: row for row in rows}
    # where defaults follow what was measured for each shape, a rule of whole classes would be the slower guess
    ruled = [subject for subject in sorted(of_rules) if not backends.find(of_rules[subject].target.backend).fitted]
    measured = computed([shape(of_rules[subject]) for subject in ruled])
    known = {(rule.backend, rule.arch, rule.kind) for rule in measured}
    written = {(r.backend, r.arch, r.kind): r for p in payloads for r in p.rules}
    rules = (*measured, *(rule for key, rule in written.items() if key not in known))
    ordered = tuple(sorted(rules, key=lambda r: (r.backend, r.arch, r.kind)))
    return Packed(rows, ordered, Counter(reason for reason in reasons.values() if reason is not None))


def write(packed: Packed, path: str | Path) -> None:
    """Writes a store of its own, the same bytes for the same content. Raises StoreError or FileError."""
    write_sqlite(path, _payload(packed.rows), packed.rules)


def differs(packed: Packed, path: str | Path) -> bool:
    """Whether the store at `path` holds anything else than what was packed. Versions of SQLite lay out files
    differently, so contents are compared. Raises StoreError or FileError if it cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "packed.sqlite")
        write(packed, made)
        regular_size(path, MAX_NBYTES)
        return _content(made) != _content(Path(path))


def _content(path: Path) -> list[str]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        return sorted(connection.iterdump())


def _parsed(path: str) -> Payload:
    try:
        return payload.parse(transfer.read(path, _no_stdin))
    except ExchangeError as e:
        raise ExchangeError(f"{path}: {str(e).removeprefix(f'{path}: ')}") from e


def _no_stdin(most: int) -> str:
    raise ExchangeError("-: results are packed from files; give their names")


def _check_runs(payloads: Iterable[Payload]) -> None:
    seen: dict[str, tuple[Run, str]] = {}
    for run, at in (r for p in payloads for r in p.runs):
        if seen.setdefault(run.id, (run, at)) != (run, at):
            raise ExchangeError(f"two inputs have different runs of the id {run.id!r}")


def _rows(parsed: Payload) -> Iterable[Row]:
    runs = {run.id: (run, at) for run, at in parsed.runs}
    baselines: dict[object, list[Fact]] = {}
    for fact in parsed.facts:
        if fact.measurement.stage is Stage.BASELINE:
            baselines.setdefault(_key(fact), []).append(fact)
    for fact in parsed.facts:
        if fact.measurement.stage is Stage.FINAL:
            own = tuple(baselines.get(_key(fact), ()))
            yield Row(fact, own, dict(parsed.others.get(fact, {})), *runs[fact.run_id])


def _key(fact: Fact) -> object:
    m = fact.measurement
    return fact.run_id, m.workload, m.target, m.kernel_digest


def _age(row: Row) -> tuple[str, str]:
    return row.final.created_at, codec.canonical_json(_final(row))


def _why_not(m: Measurement) -> str | None:
    """Why a row is not packed; None if it is."""
    if missing_kernel(m.workload) is not None:
        return "of an op, format or shape without kernels here"
    return STALE if m.kernel_digest != kernel_digest(m.workload) else unfit(m)


def shape(row: Row) -> Shape:
    """What rules are computed from."""
    m = row.final.measurement
    times = {f.measurement.schedule: _seconds(f) for f in (*row.baselines, row.final)}
    return Shape(m.workload, m.target, _seconds(row.final), {**row.others, **times})


def _seconds(fact: Fact) -> float:
    return quantile(fact.measurement.samples, 0.5)


def _payload(rows: Sequence[Row]) -> dict[str, Any]:
    runs = {row.run.id: payload.run_to_json(row.run, row.started_at) for row in rows}
    return {
        "format": payload.FORMAT,
        "version": payload.VERSION,
        "runs": [runs[id_] for id_ in sorted(runs)],
        "finals": [_final(row) for row in rows],
    }


def _final(row: Row) -> dict[str, Any]:
    m = row.final.measurement
    return {
        "run": row.run.id,
        "workload": codec.workload_to_json(m.workload),
        "target": codec.target_to_json(m.target),
        "kernel_digest": m.kernel_digest,
        **payload.fact_to_json(m, row.final.created_at),
        "baselines": [payload.fact_to_json(b.measurement, b.created_at) for b in row.baselines],
    }
