"""`autotune list` and `show`: what the store holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from autotune.cli import options as opt
from autotune.cli.options import options, status_of, store_to_read, this_target, workloads_of
from autotune.cli.text import echo, line_width, say

if TYPE_CHECKING:
    from db.store import Store, Winner


@click.command("list", cls=opt.Verb, short_help="List what the store serves, with its gains.")
@click.argument("model", required=False)
@options(
    opt.ctx,
    opt.target,
    opt.format,
    click.option("--all-targets", is_flag=True, help="Not only what was tuned for this machine's device."),
    click.option("--runs", is_flag=True, help="List the runs that results come from, instead of the results."),
    opt.device,
    opt.db,
    opt.json,
)
def list_(
    model: str | None,
    ctx: int | None,
    target: str | None,
    formats: tuple[str, ...],
    all_targets: bool,
    runs: bool,
    device: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """List what the store serves: schedule, time, bandwidth, gains, error.

    Of all workloads, or of those of MODEL; `autotune explain` tells what serves the others. `gain` is that over
    tinygrad's heuristic if it was timed, `over default` that over what would be served untuned. On a narrow terminal a
    row has several lines.

    \b
    Examples:
      autotune list model.gguf
      autotune list --format Q4_K
      autotune list --runs
    """
    from autotune import jsonable, transfer
    from autotune.report.store import winners_table

    chosen, store = store_to_read(db=db, device=device)
    if runs:
        if model or target or formats or all_targets:
            raise click.UsageError("--runs lists the runs of all results")
        return _list_runs(store, as_json)
    here = None if all_targets or target is not None else this_target(chosen)
    every = [w for w in transfer.served(store, target) if not formats or w.row.measurement.workload.format in formats]
    if model:
        every = of_model(every, model, ctx)
    found = [w for w in every if here in (None, w.row.measurement.target)]
    if as_json:
        say([jsonable.winner(w) for w in found])
    elif found:
        echo(winners_table(found, line_width()))
    else:
        others = f"; {len(every)} for other targets (--all-targets)" if every else "; `autotune sweep` stores results"
        of = f" of {model}" if model else ""
        echo(f"nothing{of} is served{f' for {here}' if here else ''} from {store.where}{others}")
    if not as_json and (claims := store.claims(here)):
        echo(f"{len(claims)} imported and not checked yet, so not served: autotune verify --schedules")
    return status_of(store)


def of_model(winners: Sequence[Winner], model: str, ctx: int | None) -> list[Winner]:
    """Those winners whose workload a sweep of the model may have tuned, as it is planned for their backends."""
    backends = {w.row.measurement.target.backend for w in winners}
    of = {backend: workloads_of(model, backend, ctx) for backend in backends}
    return [w for w in winners if w.row.measurement.workload in of[w.row.measurement.target.backend]]


def _list_runs(store: Store, as_json: bool) -> int:
    from autotune import jsonable
    from autotune.report.store import runs_table

    found = store.runs()
    if as_json:
        say([jsonable.stored_run(r) for r in found])
    else:
        echo(runs_table(found, line_width()) if found else f"there are no runs in {store.where}")
    return status_of(store)


@click.command(cls=opt.Verb)
@click.argument("digest")
@options(opt.db, opt.json)
def show(digest: str, db: str | None, as_json: bool) -> int:
    """Tell all about one workload: what is served, how its candidates ended, its history.

    DIGEST is what `autotune list` shows, or any beginning of it that is unique.

    \b
    Example:
      autotune show 5f0c1e
    """
    from autotune import jsonable
    from autotune.report.store import history

    _, store = store_to_read(db=db)
    rows = store.measurements(digest.lower())
    w = rows[0].measurement.workload
    served = [x for x in store.finals(op=w.op, format=w.format) if x.row.measurement.workload == w]
    if as_json:
        say({"served": [jsonable.winner(x) for x in served], "history": [jsonable.recorded(r) for r in rows]})
    else:
        echo(history(rows, served, line_width()))
    return status_of(store)
