"""What became of stale schedules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.render import WORKLOAD, Columns, line, micros, schedule_name, times, workload_name

if TYPE_CHECKING:
    from autotune.retune import Retuned

RETUNE: Columns = (WORKLOAD, ("before µs", 9), ("now µs", 9), ("over default", 12), ("result", -13), ("schedule", 0))


def retuned_row(r: Retuned) -> str:
    gain = r.baseline_seconds / r.seconds if r.baseline_seconds and r.seconds else None
    figures = micros(r.before), micros(r.seconds), times(gain)
    what = r.reason if r.schedule is None else schedule_name(r.schedule) + ("" if r.same else "  (another than before)")
    return line(RETUNE, (workload_name(r.workload), *figures, r.status, what if r.ok else f"{what}: sweep it again"))


def retuned_summary(rows: Sequence[Retuned]) -> str:
    """What was stale, what became of it, and the time of all before and after."""
    done = [r for r in rows if r.seconds]
    before, after = sum(r.before for r in done), sum(r.seconds or 0 for r in done)
    statuses = ", ".join(f"{n} {status}" for status, n in Counter(r.status for r in rows).items())
    reasons = [f"{n} because {why}" for why, n in Counter(r.why for r in rows).items()]
    ratio = f"; together {micros(before)} µs before, {micros(after)} µs now" if done else ""
    return f"{len(rows)} workloads ({', '.join(reasons)}): {statuses}{ratio}"
