"""`autotune list` and `show`: what the store holds."""

from __future__ import annotations

import click

from autotune.cli import options as opt
from autotune.cli.options import options, status_of, store_to_read, this_target
from autotune.cli.text import echo, say


@click.command("list", cls=opt.Verb, short_help="List what is served, with its gains.")
@options(
    opt.target,
    opt.format,
    click.option("--all-targets", is_flag=True, help="Not only what was tuned for this machine's device."),
    opt.device,
    opt.db,
    opt.json,
)
def list_(
    target: str | None, formats: tuple[str, ...], all_targets: bool, device: str | None, db: str | None, as_json: bool
) -> int:
    """List what is served: schedule, time, bandwidth, gain over tinygrad's heuristic and our default, error.

    \b
    Example:
      autotune list --format Q4_K
    """
    from autotune import jsonable, reports, transfer

    chosen, store = store_to_read(db=db, device=device)
    here = None if all_targets or target is not None else this_target(chosen)
    every = [w for w in transfer.served(store, target) if not formats or w.row.measurement.workload.format in formats]
    found = [w for w in every if here in (None, w.row.measurement.target)]
    if as_json:
        say([jsonable.winner(w) for w in found])
    elif found:
        echo(reports.winners_table(found))
    else:
        others = f"; {len(every)} for other targets (--all-targets)" if every else ""
        echo(f"nothing is served{f' for {here}' if here else ''} from {store.where}{others}")
    if not as_json and (claims := store.claims(here)):
        echo(f"{len(claims)} imported and not checked yet, so not served: autotune verify --schedules")
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
    from autotune import jsonable, reports

    _, store = store_to_read(db=db)
    rows = store.measurements(digest.lower())
    w = rows[0].measurement.workload
    served = [x for x in store.finals(op=w.op, format=w.format) if x.row.measurement.workload == w]
    if as_json:
        say({"served": [jsonable.winner(x) for x in served], "history": [jsonable.recorded(r) for r in rows]})
    else:
        echo(reports.history(rows, served))
    return status_of(store)
