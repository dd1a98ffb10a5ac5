"""What serves the kernels of a model, and by which step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.render import WORKLOAD, Columns, micros, percent, schedule_name, table, workload_name
from db.records import Target
from kernels import backends

if TYPE_CHECKING:
    from autotune.explain import Explained
    from db.rules import Rule

EXPLAIN: Columns = (WORKLOAD, ("calls", 5), ("share", 6), ("step", -9), ("tuned µs", 10), ("schedule", 0))


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
