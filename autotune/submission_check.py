"""What the files of `autotune submit` in a folder add to those of another: their form, and that nothing is lost.

What needs a device is checked elsewhere: `autotune verify --file`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotune import transfer
from autotune.claims import unfit
from autotune.gains import Gains
from autotune.render import workload_name
from autotune.session import missing_kernel
from autotune.submission import SUFFIX, slug
from db.codec import workload_digest
from db.errors import AutotuneError, file_errors
from db.payload import parse
from db.records import Target, Workload
from db.store import Winner
from kernels.ops.registry import kernel_digest, variants

VERSIONS = ("tinygrad", "driver", "tinygrad-autotune")
"""Of a run: without them nobody can say what its times are of."""

Rows = dict[tuple[Workload, Target], Winner]


@dataclass(frozen=True)
class Change:
    """A row that is new, or that takes the place of `before`."""

    row: Winner
    before: Winner | None


@dataclass(frozen=True)
class Examined:
    """What a folder changes, and what is wrong with it, a line each."""

    files: int
    rows: int
    changes: tuple[Change, ...]
    problems: tuple[str, ...]


def examine(folder: str, old: str | None = None) -> Examined:
    """Checks the form of each file, and each row that `old`, an earlier state of the folder, does not have.

    A row of `old` must still be there, or a later one of the same workload and target. Without `old` each row is new.
    Raises SubmissionError or FileError for a folder that is none.
    """
    problems: list[str] = []
    files = _files(folder)
    rows, before = _rows(files, problems), _rows(_files(old), []) if old else {}
    problems += [
        f"{_name(gone)}: is not there any more; rows are only added" for key, gone in before.items() if key not in rows
    ]
    changes = [Change(row, before.get(key)) for key, row in rows.items() if before.get(key) != row]
    problems += [f"{_name(change.row)}: {fault}" for change in changes for fault in _faults(change)]
    return Examined(len(files), len(rows), tuple(changes), tuple(problems))


def _files(folder: str) -> list[Path]:
    with file_errors(folder):
        return sorted(path for path in Path(folder).iterdir() if path.suffix == SUFFIX)


def _rows(files: list[Path], problems: list[str]) -> Rows:
    """The rows of all files; what is wrong with a file is added to `problems`."""
    found: Rows = {}
    for path in files:
        try:
            winners = transfer.winners(parse(transfer.read(str(path), lambda most: "")))
        except AutotuneError as e:
            problems.append(str(e) if str(path) in str(e) else f"{path}: {e}")
            continue
        for target in {w.row.measurement.target for w in winners}:
            if path.name != slug(target) + SUFFIX:
                problems.append(f"{path}: rows of {target} belong in {slug(target)}{SUFFIX}")
        for winner in winners:
            m = winner.row.measurement
            if (m.workload, m.target) in found:
                problems.append(f"{path}: {_name(winner)} is given twice")
            found[m.workload, m.target] = winner
    return found


def _faults(change: Change) -> list[str]:
    """What is wrong with a row that is new, or with its taking another's place."""
    m, run, gains = change.row.row.measurement, change.row.row.run, Gains.of(change.row)
    if reason := missing_kernel(m.workload):
        return [reason]
    faults = []
    if m.kernel_digest != kernel_digest(m.workload):
        faults.append("tuned for another version of the kernels; `autotune retune` and submit again")
    elif m.schedule.variant not in variants(m.workload):
        faults.append(f"there is no variant {m.schedule.variant!r} of {m.workload.op}")
    elif reason := unfit(m):
        faults.append(reason)
    if lacking := [name for name in VERSIONS if name not in dict(run.versions)]:
        faults.append(f"its run does not say the version of {', '.join(lacking)}")
    known = [seconds for seconds in (gains.heuristic_seconds, gains.default_seconds) if seconds]
    if not known:
        faults.append("it has no baseline, so nobody can say what it gains")
    elif gains.seconds > min(known):
        faults.append("it is slower than a baseline of its own")
    if change.before and change.before.row.created_at >= change.row.row.created_at:
        faults.append("it differs from the row that was there, and was not measured later")
    return faults


def _name(winner: Winner) -> str:
    m = winner.row.measurement
    return f"{m.target}: {workload_name(m.workload)} ({workload_digest(m.workload)[:8]})"
