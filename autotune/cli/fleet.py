"""`autotune sweep --fleet`: the lines of output of a sweep by many devices."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from autotune.cli.options import plan_of
from autotune.cli.sweep import end, show
from autotune.cli.text import echo, say_line

if TYPE_CHECKING:
    from autotune.fleet.client import Group, Part
    from autotune.result import Result
    from autotune.settings import Settings
    from autotune.sweep import Row
    from db.records import Workload
    from db.store import Store

Models = Sequence[tuple[str, str]]
"""(place, what the store remembers as the command) of each model."""


def sweep_fleet(
    where: str,
    models: Models,
    asked: tuple[tuple[int, ...], int | None, bool, bool],
    chosen: Settings,
    as_json: bool,
    *,
    again: bool,
) -> int:
    """asked: token buckets, context, whether plain linears are tuned, and whether activations stay float32. The exit
    status."""
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise click.UsageError("--fleet needs the extra fleet: pip install 'tinygrad-autotune[fleet]'") from None
    from autotune.fleet.client import Part, groups
    from autotune.fleet.cluster import Place, connected
    from db.store import Store

    place, start = Place.parse(where), time.monotonic()
    store = Store.open(chosen.db)
    with connected(place, chosen) as client:
        found = groups(client)
        plans = {device: [plan_of(m, device, *asked) for m, _ in models] for device in {g.device for g in found}}
        notes = list(dict.fromkeys(note for of_device in plans.values() for plan in of_device for note in plan.notes))
        _begin(client.dashboard_link, found, notes, store, as_json)
        done: dict[str, dict[Workload, Result]] = {group.resource: {} for group in found}
        parts = [
            Part(group, chosen, store, plan, command, again=again, done=done[group.resource])
            for group in found
            for plan, (_, command) in zip(plans[group.device], models, strict=True)
        ]
        rows = _rows(client, parts, chosen.budget_seconds, as_json)
    return end(rows, time.monotonic() - start, store.where, as_json)


def _begin(dashboard: str, found: Sequence[Group], notes: Sequence[str], store: Store, as_json: bool) -> None:
    from autotune.report.sweep import WIDE, sweep_heading

    if as_json:
        targets = [{"target": str(g.target), "workers": g.workers} for g in found]
        say_line("start", fleet=targets, dashboard=dashboard, notes=list(notes), store=store.where)
        return
    devices = [f"target {g.target}: {g.workers} worker{'s' * (g.workers > 1)}" for g in found]
    echo("\n".join([f"dashboard {dashboard}", *devices, *(f"note: {note}" for note in notes)]))
    echo(sweep_heading(WIDE))


def _rows(client: Any, parts: Sequence[Part], budget_seconds: float, as_json: bool) -> list[Row]:
    from autotune.fleet.client import Fleet
    from autotune.progress import Bar
    from autotune.report.sweep import WIDE

    several = len({part.group.target for part in parts}) > 1
    rows = []
    todo = sum(len(part.todo) for part in parts)
    with Bar(todo, budget_seconds, sys.stderr.isatty()) as bar, closing(Fleet(client, parts).rows()) as coming:
        for part, row in coming:
            target = part.group.target
            show(row, bar, as_json, {"target": str(target)}, WIDE, f"  [{target.device}]" if several else "")
            if row.model in part.todo:
                bar.finished()
            rows.append(row)
    return rows
