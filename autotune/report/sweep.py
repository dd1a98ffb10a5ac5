"""The lines of a sweep: its workloads, its summary, and what it brought for each model's passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.gains import geometric_mean
from autotune.render import (
    WORKLOAD,
    Columns,
    exponent,
    giga,
    heading,
    line,
    micros,
    percent,
    schedule_name,
    shortened,
    times,
    workload_name,
)

if TYPE_CHECKING:
    from autotune.deployed import Deployed
    from autotune.sweep import Row

SWEEP: Columns = (
    WORKLOAD,
    ("calls", 5),
    ("heuristic µs", 12),
    ("default µs", 10),
    ("tuned µs", 10),
    ("gain", 7),
    ("GB/s", 7),
    ("of copy", 7),
    ("error", 7),
    ("schedule", 0),
)
SWEEP_NARROW: Columns = (
    ("workload", -40),
    ("calls", 5),
    ("default µs", 10),
    ("tuned µs", 9),
    ("result", 0),
)
WIDE = 130  # columns of a terminal in which a line of SWEEP fits


def sweep_heading(width: int) -> str:
    """The titles of `sweep_row` in a terminal of this many columns."""
    return heading(SWEEP if width >= WIDE else SWEEP_NARROW)


def sweep_row(row: Row, width: int = WIDE) -> str:
    """A line for a workload. In a narrow terminal it has what the pass is judged by, and no schedule."""
    r = row.result
    if width < WIDE:
        cells = shortened(workload_name(r.workload), 40), str(row.model.count), micros(r.default_seconds)
        rejected = r.status == "known" and r.schedule is None
        return line(SWEEP_NARROW, (*cells, micros(r.seconds), "rejected" if rejected else r.status))
    what = r.reason if r.schedule is None else schedule_name(r.schedule)
    note = "" if r.status == "tuned" else f"{r.status}: " if r.schedule is None else f"  ({r.status})"
    return line(
        SWEEP,
        (
            workload_name(r.workload),
            str(row.model.count),
            micros(r.heuristic_seconds),
            micros(r.default_seconds),
            micros(r.seconds),
            times(r.gain),
            giga(row.bandwidth),
            percent(row.copy_share),
            exponent(r.error),
            note + what if r.schedule is None else what + note,
        ),
    )


def sweep_summary(rows: Sequence[Row], elapsed_seconds: float, where: str) -> str:
    """What was done, how long it took, the store's place, and as a footnote the gain of each kernel by itself."""
    counts = Counter(r.result.status for r in rows)
    status = ", ".join(f"{n} {name}" for name, n in counts.items())
    summary = f"{len(rows)} workloads ({status}) in {elapsed_seconds:.1f} s; stored in {where}"
    gain = geometric_mean([r.result.gain for r in rows if r.result.gain])
    note = f"each kernel by itself, over tinygrad's heuristic: {times(gain)} (geometric mean)"
    return "\n".join([summary, note] if gain else [summary])


def token_line(d: Deployed, name: str = "") -> str:
    """What a sweep brought for a model's pass, in one line. name: of the model, where there are several."""
    what = d.name
    same = "the schedules that were served before are as fast" if d.tuned else "the shipped schedules are as fast"
    before, after = d.before_seconds, d.after_seconds
    if d.reason:
        said = d.reason
    elif before is None or after is None:
        found = "what is served here was timed before" if d.tuned else "the shipped schedules are served"
        found = f"nothing new: {found}"
        said = found if d.m == 1 else f"{what}: {found}"
    elif not d.kept:
        rate = f"{d.m / before:.{_digits(d.m / before)}f} tok/s"
        said = f"nothing to gain here: {same} ({what}: {_milli(before)}, {rate})"
    else:
        gain = 100 * (before / after - 1)
        change = f"{gain:+.1f} %" if abs(gain) < 2 else f"{gain:+.0f} %"
        rates = f"{d.m / before:.{_digits(d.m / before)}f} → {d.m / after:.{_digits(d.m / before)}f} tok/s"
        said = f"{what}: {_milli(before)} → {_milli(after)} ({rates}, {change})"
    if d.kept and d.rejected:
        said += f"; {len(d.rejected)} of {len(d.kept) + len(d.rejected)} new schedules left out, no faster with them"
    if d.layers < d.of_layers:
        said += f"; timed with {d.layers} of {d.of_layers} layers, for want of memory"
    return f"{name}: {said}" if name else said


def _milli(seconds: float) -> str:
    return f"{seconds * 1e3:.{_digits(seconds * 1e3)}f} ms"


def _digits(value: float) -> int:
    """Decimals with which a value has three digits, 2 at most."""
    return 2 if value < 10 else 1 if value < 100 else 0
