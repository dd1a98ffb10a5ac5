"""What a store has: winners, runs, and the history of one workload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.gains import Gains
from autotune.render import (
    NONE,
    WORKLOAD,
    Columns,
    exponent,
    giga,
    micros,
    schedule_name,
    table,
    times,
    workload_name,
)
from db.codec import workload_digest
from db.records import Outcome, Stage

if TYPE_CHECKING:
    from db.rows import StoredRun
    from db.store import Recorded, Winner

LIST: Columns = (
    WORKLOAD,
    ("tuned µs", 10),
    ("GB/s", 7),
    ("gain", 7),
    ("over default", 12),
    ("error", 7),
    ("digest", -8),
    ("schedule", 0),
)
RUNS: Columns = (("run", -8), ("when (UTC)", -16), ("origin", -8), ("accepted", 8), ("rows", 6), ("command", 0))
HISTORY: Columns = (
    ("when (UTC)", -19),
    ("stage", -9),
    ("outcome", -13),
    ("µs", 10),
    ("error", 7),
    ("kernel", -8),
    ("schedule", 0),
)


def winners_table(winners: Sequence[Winner], width: int | None = None) -> str:
    blocks = []
    for target in dict.fromkeys(w.row.measurement.target for w in winners):
        rows = []
        for winner in (w for w in winners if w.row.measurement.target == target):
            m, s = winner.row.measurement, Gains.of(winner)
            name, digest = workload_name(m.workload), workload_digest(m.workload)[:8]
            figures = micros(s.seconds), giga(s.bandwidth), times(s.gain), times(s.gain_over_default)
            rows.append((name, *figures, exponent(m.error), digest, schedule_name(m.schedule)))
        blocks.append(f"{target}\n{table(LIST, rows, width)}")
    return "\n\n".join(blocks)


def runs_table(runs: Sequence[StoredRun], width: int | None = None) -> str:
    rows = [
        (r.run.id[:8], _minute(r.started_at), r.origin, str(r.accepted), str(r.measurements), r.run.command)
        for r in runs
    ]
    return table(RUNS, rows, width)


def _minute(date: str) -> str:
    return date[:16].replace("T", " ")


def history(rows: Sequence[Recorded], served: Sequence[Winner], width: int | None = None) -> str:
    """The details of one workload: what is served on which target, the outcomes of its candidates, and its history."""
    w = rows[0].measurement.workload
    name = workload_name(w)
    title = name if name.startswith(w.op) else f"{w.op} {name}"
    parts = [f"{title}, out {w.out_dtype}, epilogue {w.epilogue}\ndigest {workload_digest(w)}"]
    parts += [_served(winner) for winner in served] or ["nothing is served"]
    parts.append("outcomes of its schedules:\n" + _outcomes(rows))
    decisive = [r for r in rows if r.measurement.stage is not Stage.PROBE]
    parts.append(
        f"history, without {len(rows) - len(decisive)} probes:\n" + table(HISTORY, map(_history_row, decisive), width)
    )
    return "\n\n".join(parts)


def _served(winner: Winner) -> str:
    m, s = winner.row.measurement, Gains.of(winner)
    lines = [
        f"served on {m.target}, kernel {m.kernel_digest[:8]}, {winner.row.origin}:",
        f"  {schedule_name(m.schedule)}",
        ", ".join([f"  {micros(s.seconds)} µs, {giga(s.bandwidth)} GB/s", *_compared(s)]),
        f"  relative error {exponent(m.error)}, allowed {exponent(m.tolerance)}; clock: {m.clock}",
        f"  run {winner.row.run.id}: {winner.row.run.command}",
        f"  {', '.join(f'{name} {version}' for name, version in winner.row.run.versions)}",
    ]
    for i, o in enumerate(m.schedule.opts or ()):
        lines.append(f"  opt {i}: {o.op} loop={o.range or NONE} axis={NONE if o.axis is None else o.axis} arg={o.arg}")
    return "\n".join(lines)


def _compared(s: Gains) -> list[str]:
    """The gains over those baselines that were timed."""
    found = [
        ("the heuristic's", s.gain, s.heuristic_seconds),
        ("what would be served untuned,", s.gain_over_default, s.default_seconds),
    ]
    return [f"{times(gain)} the speed of {what} {micros(seconds)} µs" for what, gain, seconds in found if seconds]


def _outcomes(rows: Sequence[Recorded]) -> str:
    counts = Counter(r.measurement.outcome for r in rows)
    lines = []
    for outcome in (o for o in Outcome if counts[o]):
        reasons = [r.measurement.reason for r in rows if r.measurement.outcome is outcome and r.measurement.reason]
        lines.append(f"  {counts[outcome]:6} {outcome:13}" + (f"  {reasons[-1]}" if reasons else ""))
    return "\n".join(line.rstrip() for line in lines)


def _history_row(r: Recorded) -> Sequence[str]:
    m = r.measurement
    seconds = r.median_seconds if m.samples else None
    note = m.reason or ("of a whole pass" if m.stage is Stage.DEPLOYED else "")
    what = schedule_name(m.schedule) + (f"  {note}" if note else "")
    when = r.created_at[:19].replace("T", " ")
    return when, m.stage, m.outcome, micros(seconds), exponent(m.error), m.kernel_digest[:8], what
