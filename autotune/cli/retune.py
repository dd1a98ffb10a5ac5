"""`autotune retune`: stored schedules again, after an upgrade."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from autotune.cli import options as opt
from autotune.cli.options import INTERRUPTED, options, settings, workloads_of
from autotune.cli.text import echo, say_line, tell

if TYPE_CHECKING:
    from autotune.retune import Retuned


@click.command(cls=opt.Verb, short_help="Replay stored schedules after an upgrade, instead of searching again.")
@click.argument("model", required=False)
@options(
    click.option("--all", "every", is_flag=True, help="What is not stale, too."),
    click.option(
        "--top", type=click.IntRange(1, 64), default=4, metavar="N", help="Stored schedules of each workload. [4]"
    ),
    opt.ctx,
    opt.workers,
    opt.threads,
    opt.device,
    opt.db,
    opt.json,
)
def retune(
    model: str | None,
    every: bool,
    top: int,
    ctx: int | None,
    workers: int | None,
    device: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """Replay the best stored schedules of each workload (of MODEL only, if given) whose results are stale.

    They are stale where the source of their kernel, tinygrad or the driver has changed since; `autotune explain` says
    which. The last accepted schedule and the fastest others, found under any version, are validated and timed in turns
    with the baselines, and the fastest is accepted: seconds a workload, where a sweep takes minutes. After Ctrl-C the
    same command goes on from there. Status 1 if no schedule of a workload is right any more: sweep it.

    \b
    Examples:
      autotune retune
      autotune retune model.gguf --all
    """
    from autotune.session import choose, session

    chosen = settings(db=db, device=device, workers=workers)
    workloads = workloads_of(model, choose(chosen).device, ctx) if model else None
    with session(chosen) as s:
        from autotune.render import heading
        from autotune.report.doctor import chosen_device
        from autotune.report.retune import RETUNE
        from autotune.retune import Retune

        found = Retune(s, "autotune retune", workloads, every, top)
        if not as_json:
            echo(f"{chosen_device(s.choice)}\ntarget {s.info.target}")
        if not found.todo:
            return _nothing(s.store.where, as_json)
        if not as_json:
            echo(heading(RETUNE))
        try:
            return _told(found.rows(), as_json)
        except KeyboardInterrupt:
            tell("stopped; what was accepted stays, and the same command goes on from there")
            return INTERRUPTED


def _nothing(where: str, as_json: bool) -> int:
    if as_json:
        say_line("summary", statuses={})
    else:
        echo(f"nothing is stale in {where}; --all replays what is not stale, too")
    return 0


def _told(found: Iterable[Retuned], as_json: bool) -> int:
    """Prints each as it comes. Status 1 if one is not ok."""
    from autotune import jsonable
    from autotune.report.retune import retuned_row, retuned_summary

    rows = []
    for row in found:
        rows.append(row)
        if as_json:
            say_line("workload", **jsonable.retuned(row))
        else:
            echo(retuned_row(row))
    if as_json:
        say_line("summary", **jsonable.retuned_summary(rows))
    else:
        echo(retuned_summary(rows))
    return 0 if all(row.ok for row in rows) else 1
