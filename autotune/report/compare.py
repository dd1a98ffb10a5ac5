"""The times of two runs, devices or stores side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.gains import geometric_mean
from autotune.render import NONE, WORKLOAD, Columns, micros, table, times, workload_name

if TYPE_CHECKING:
    from autotune.compare import Comparison

COMPARE: Columns = (WORKLOAD, ("calls", 5), ("A µs", 9), ("B µs", 9), ("A/B", 7), ("schedule", -8))


def comparison(c: Comparison, width: int | None = None) -> str:
    """Both times of each workload that both have, what only one has, and the sums over a pass of a model."""
    rows = []
    for pair in c.pairs:
        same = "same" if pair.a.row.measurement.schedule == pair.b.row.measurement.schedule else ""
        name, calls = workload_name(pair.workload), NONE if pair.calls is None else str(pair.calls)
        rows.append((name, calls, micros(pair.a_seconds), micros(pair.b_seconds), times(pair.ratio), same))
    lines = [f"A: {c.a}", f"B: {c.b}", *([table(COMPARE, rows, width)] if rows else [])]
    for total in c.totals:
        what = "a token" if total.m == 1 else f"{total.m} tokens"
        lacking = f", without {total.lacking} launches that one of them lacks" if total.lacking else ""
        seconds = f"{micros(total.a_seconds)} µs, {micros(total.b_seconds)} µs"
        lines.append(f"all kernels of {what}: {seconds}, {times(total.ratio)}{lacking}")
    mean = geometric_mean([pair.ratio for pair in c.pairs])
    lines.append(f"{len(c.pairs)} workloads in both, geometric mean {times(mean)} (above 1: B is faster)")
    lines += [f"only in {side}: {n}" for side, n in (("A", c.only_a), ("B", c.only_b)) if n]
    return "\n".join(lines)
