"""What a folder of submissions changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.gains import Gains
from autotune.render import WORKLOAD, Columns, exponent, micros, table, times, workload_name

if TYPE_CHECKING:
    from autotune.submission_check import Change, Examined

SUBMITTED: Columns = (WORKLOAD, ("µs", 9), ("gain", 7), ("over default", 12), ("before", 9), ("error", 7))


def examined(e: Examined, width: int | None = None) -> str:
    """What a folder of submissions changes, row by row under its target and versions, and what is wrong with it."""
    parts = []
    for target in dict.fromkeys(c.row.row.measurement.target for c in e.changes):
        of_target = [c for c in e.changes if c.row.row.measurement.target == target]
        versions = sorted({", ".join(map(" ".join, c.row.row.run.versions)) for c in of_target})
        parts.append("\n".join([str(target), *versions, table(SUBMITTED, map(_submitted_row, of_target), width)]))
    new = sum(c.before is None for c in e.changes)
    counts = f"{e.rows} rows in {e.files} files: {new} new, {len(e.changes) - new} replaced"
    return "\n\n".join([*parts, "\n".join([*e.problems, f"{counts}, {len(e.problems)} problems"])])


def _submitted_row(c: Change) -> Sequence[str]:
    m, s = c.row.row.measurement, Gains.of(c.row)
    before = None if c.before is None else c.before.row.median_seconds
    gains = times(s.gain), times(s.gain_over_default)
    return workload_name(m.workload), micros(s.seconds), *gains, micros(before), exponent(m.error)
