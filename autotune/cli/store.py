"""`autotune list`, `show`, `export` and `import`: what the store holds, and moving it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from autotune.cli import options as opt
from autotune.cli.options import options, settings, settings_to_read, this_target
from autotune.cli.text import UTF8, echo, read_stdin, say, tell

if TYPE_CHECKING:
    from db.store import Store


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
    from db.store import Store

    chosen = settings_to_read(db=db, device=device)
    store = Store.read(chosen.db, missing_ok=True)
    here = None if all_targets or target is not None else this_target(chosen)
    every = [w for w in transfer.served(store, target) if not formats or w.row.measurement.workload.format in formats]
    found = [w for w in every if here in (None, w.row.measurement.target)]
    if as_json:
        say([jsonable.winner(w) for w in found])
    elif found:
        echo(reports.winners_table(found))
    else:
        others = f"; {len(every)} for other targets (--all-targets)" if every else ""
        echo(f"nothing is stored{f' for {here}' if here else ''} in {store.where}{others}")
    return _status(store)


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
    from db.store import Store

    store = Store.read(settings_to_read(db=db).db, missing_ok=True)
    rows = store.measurements(digest.lower())
    w = rows[0].measurement.workload
    served = [x for x in store.finals(op=w.op, format=w.format) if x.row.measurement.workload == w]
    if as_json:
        say({"served": [jsonable.winner(x) for x in served], "history": [jsonable.recorded(r) for r in rows]})
    else:
        echo(reports.history(rows, served))
    return _status(store)


@click.command(cls=opt.Verb)
@options(
    click.option(
        "-o", "--output", default="-", metavar="FILE", help="JSON, or a store if it ends in .sqlite; - is stdout."
    ),
    opt.target,
    click.option("--op", metavar="OP", help="Only this op."),
    click.option("--format", "format_", metavar="TYPE", callback=opt.ggml_types, help="Only this GGML type."),
    opt.db,
    opt.json,
)
def export(output: str, target: str | None, op: str | None, format_: str | None, db: str | None, as_json: bool) -> int:
    """Write what is served to a file that `autotune import` reads on another machine. Data only.

    \b
    Example:
      autotune export -o opts.json
    """
    from autotune import transfer
    from db.store import Store
    from kernels.ops.registry import get_op

    if op is not None:
        get_op(op)
    if as_json and output == "-":
        raise click.UsageError("stdout has the export itself: --json reports on one that goes to a file (-o)")
    store = Store.read(settings_to_read(db=db).db, missing_ok=True)
    payload = transfer.export(store, target, op, format_)
    if output == "-":
        say(payload)
        return _status(store)
    transfer.write(payload, output)
    count = len(payload["finals"])
    if as_json:
        say({"file": output, "finals": count, "runs": len(payload["runs"])})
    else:
        echo(f"{count} schedules written to {output}")
    return _status(store)


def _status(store: Store) -> int:
    """Tells of rows that could not be read: the command did what it could without them."""
    if store.problems:
        more = f" (and {len(store.problems) - 1} more)" if store.problems[1:] else ""
        tell(f"autotune: {store.problems[0]}{more}")
    return 1 if store.problems else 0


@click.command("import", cls=opt.Verb, short_help="Add the results in FILE to the store.")
@click.argument("file")
@options(opt.db, opt.json)
def import_(file: str, db: str | None, as_json: bool) -> int:
    """Add the results in FILE (of `autotune export`; - is stdin) to the store: all of them, or none if one is bad.

    \b
    Example:
      autotune import opts.json
    """
    from autotune import transfer
    from db.exchange import import_payload
    from db.store import Store

    payload = transfer.read(file, lambda: read_stdin("the export", UTF8))
    store = Store.open(settings(db=db).db)
    counts = import_payload(store, payload)
    if as_json:
        say({"new": counts.measurements, "known": counts.known, "runs": counts.runs, "store": store.where})
    else:
        echo(f"{counts.measurements} rows are new, {counts.known} were known; stored in {store.where}")
    return 0
