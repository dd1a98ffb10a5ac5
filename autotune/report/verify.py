"""The lines of checked schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.render import WORKLOAD, Columns, exponent, line, schedule_name, workload_name

if TYPE_CHECKING:
    from autotune.verify import Checked

VERIFY: Columns = (WORKLOAD, ("origin", -9), ("result", -9), ("error", 7), ("schedule", 0))


def checked_row(c: Checked) -> str:
    what = schedule_name(c.schedule) + (f"  {c.outcome}: {c.reason}" if c.reason and c.outcome else "")
    what = f"{schedule_name(c.schedule)}  {c.reason}" if c.outcome is None else what
    return line(VERIFY, (workload_name(c.workload), c.origin, c.status, exponent(c.error), what))
