"""`autotune compare`: two stores, exports or runs beside each other."""

from __future__ import annotations

import click

from autotune.cli import options as opt
from autotune.cli.options import options, plan_of, status_of, store_to_read
from autotune.cli.text import echo, line_width, say


@click.command(cls=opt.Verb, short_help="Compare two stores, exports or runs, workload by workload.")
@click.argument("a")
@click.argument("b")
@click.argument("model", required=False)
@options(
    click.option("--target", metavar="TEXT", help="The target whose name contains TEXT, where A or B has several."),
    opt.ctx,
    opt.exact,
    opt.db,
    opt.json,
)
def compare(
    a: str, b: str, model: str | None, target: str | None, ctx: int | None, exact: bool, db: str | None, as_json: bool
) -> int:
    """Compare the times of A and B, workload by workload, and of all launches of a token if MODEL is given.

    A and B are files (a store, or an export), or runs of the store: beginnings of their ids as `autotune list --runs`
    shows them, several of one side as in 5f0c,81d2. Times of different days or devices differ for more reasons than
    schedules.

    \b
    Examples:
      autotune compare before.sqlite after.sqlite model.gguf
      autotune compare 5f0c 81d2
    """
    from autotune import jsonable
    from autotune.compare import compare as compared
    from autotune.compare import results
    from autotune.report.compare import comparison
    from db.records import M_BUCKETS

    _, store = store_to_read(db=db)
    sides = (a, results(a, store)), (b, results(b, store))
    planned = (lambda backend: plan_of(model, backend, M_BUCKETS, ctx, exact=exact)) if model else None
    found = compared(*sides, target, planned)
    if as_json:
        say(jsonable.comparison(found))
    else:
        echo(comparison(found, line_width()))
    return status_of(store)
