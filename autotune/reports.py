"""The results of each command as text for people. `jsonable` makes JSON of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.gains import Gains, geometric_mean
from autotune.render import (
    NONE,
    Columns,
    exponent,
    giga,
    heading,
    line,
    micros,
    percent,
    schedule_name,
    shortened,
    table,
    times,
    workload_name,
)
from db.codec import workload_digest
from db.records import Outcome, Stage, Target
from kernels import backends

if TYPE_CHECKING:  # importing the tuner takes a second, and a dry run does not need it
    from autotune.compare import Comparison
    from autotune.deployed import Deployed
    from autotune.doctor import Report
    from autotune.explain import Explained
    from autotune.retune import Retuned
    from autotune.submission_check import Change, Examined
    from autotune.sweep import Row
    from autotune.verify import Checked
    from db.rows import StoredRun
    from db.rules import Rule
    from db.store import Recorded, Winner
    from kernels.devices import Choice

WORKLOAD = ("workload", -46)
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
EXPLAIN: Columns = (WORKLOAD, ("calls", 5), ("share", 6), ("step", -9), ("tuned µs", 10), ("schedule", 0))
VERIFY: Columns = (WORKLOAD, ("origin", -9), ("result", -9), ("error", 7), ("schedule", 0))
SUBMITTED: Columns = (WORKLOAD, ("µs", 9), ("gain", 7), ("over default", 12), ("before", 9), ("error", 7))
RETUNE: Columns = (WORKLOAD, ("before µs", 9), ("now µs", 9), ("over default", 12), ("result", -13), ("schedule", 0))
RUNS: Columns = (("run", -8), ("when (UTC)", -16), ("origin", -8), ("accepted", 8), ("rows", 6), ("command", 0))
COMPARE: Columns = (WORKLOAD, ("calls", 5), ("A µs", 9), ("B µs", 9), ("A/B", 7), ("schedule", -8))
HISTORY: Columns = (
    ("when (UTC)", -19),
    ("stage", -9),
    ("outcome", -13),
    ("µs", 10),
    ("error", 7),
    ("kernel", -8),
    ("schedule", 0),
)


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


def explanation(rows: Sequence[Explained], width: int | None = None) -> str:
    """The schedule that serves each kernel, and the share of a pass's weight bytes that each lookup step serves."""
    from autotune.explain import coverage

    shares = [
        f"m={m}, by weight bytes: " + ", ".join(f"{step} {share:.1%}" for step, share in coverage(rows, m).items())
        for m in sorted({e.model.workload.m for e in rows})
    ]
    stale = sum(e.why_stale != "" for e in rows)
    advice = [f"{stale} stale: `autotune retune` replays what is stored, in seconds a workload"] if stale else []
    return "\n".join([_explain_table(rows, width), *shares, *advice])


def _explain_table(rows: Sequence[Explained], width: int | None) -> str:
    total: Counter[int] = Counter()
    for e in rows:
        total[e.model.workload.m] += e.model.count * e.model.nbytes
    cells = []
    for e in rows:
        share = e.model.count * e.model.nbytes / total[e.model.workload.m]
        served = None if e.resolution is None else e.resolution.served
        what = e.reason if e.resolution is None else schedule_name(e.resolution.schedule)
        if served is not None and e.step in ("same_arch", "nearest"):
            what += f"  (tuned for {workload_name(served.workload)} on {_place(served.target)})"
        if e.resolution is not None and e.resolution.rule is not None:
            what += f"  ({rule_name(e.resolution.rule)})"
        what += f"  (stale: {e.why_stale})" if e.why_stale else ""
        seconds = served.seconds if served is not None and e.step != "nearest" else None
        name = workload_name(e.model.workload)
        cells.append((name, str(e.model.count), percent(share), e.step, micros(seconds), what))
    return table(EXPLAIN, cells, width)


def _place(target: Target) -> str:
    """A device; a host with its number of threads."""
    units = target.compute_units
    return (
        f"{target.device}, {units} thread{'s'[: units != 1]}" if backends.find(target.backend).host else target.device
    )


def rule_name(rule: Rule) -> str:
    """Where a rule comes from."""
    if rule.reasoned:
        return f"reasoned: {rule.why}"
    return f"rule of {rule.shapes} shapes, {rule.loss:.2f}× their best times"


def checked_row(c: Checked) -> str:
    what = schedule_name(c.schedule) + (f"  {c.outcome}: {c.reason}" if c.reason and c.outcome else "")
    what = f"{schedule_name(c.schedule)}  {c.reason}" if c.outcome is None else what
    return line(VERIFY, (workload_name(c.workload), c.origin, c.status, exponent(c.error), what))


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


def runs_table(runs: Sequence[StoredRun], width: int | None = None) -> str:
    rows = [
        (r.run.id[:8], _minute(r.started_at), r.origin, str(r.accepted), str(r.measurements), r.run.command)
        for r in runs
    ]
    return table(RUNS, rows, width)


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


def choice(c: Choice) -> str:
    """The chosen device, the reason, and how to get a faster one."""
    return f"device {c.device}: {c.reason}" + (f"\nhow to get faster: {c.faster}" if c.faster else "")


def doctor(r: Report) -> str:
    place = r.store
    size = f", {place.nbytes / 1e6:.1f} MB" if place.nbytes is not None else ""
    rows = ", ".join(f"{n} {name}" for name, n in place.rows)
    state = f"schema {place.schema}{size}; {rows}; {place.served} served" if place.exists else "not there yet"
    state += f"; cannot be written: {place.unwritable}" if place.unwritable else ""
    sections = {
        f"device: {r.device or 'none'}": [r.reason, *([f"how to get faster: {r.faster}"] if r.faster else [])],
        "devices": [f"{'*' if d.chosen else ' '} {d.name:8} {'ok' if d.ok else '--'}  {d.detail}" for d in r.devices],
        "compilers": [f"{t.name:8} {t.version or 'not found'}  {t.path}".rstrip() for t in r.compilers],
        f"threads of a CPU: {r.host.threads}": [
            r.host.why,
            f"executor: {'yes' if r.host.executor else 'no'}, {r.host.detail}",
        ],
        "versions": [f"{name:24} {version}" for name, version in r.versions],
        f"store: {place.place}": [place.error or state],
        "caches": [f"{c.name:17} {c.problem or 'ok'}  {c.place}" for c in r.caches],
        "problems" if r.problems else "no problems": [
            f"{'!' if p.fatal else '-'} {p.what}: {p.remedy}" for p in r.problems
        ],
    }
    return "\n".join("\n".join([title, *(f"  {text}" for text in lines)]) for title, lines in sections.items())
