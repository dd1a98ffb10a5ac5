"""`autotune forget`: rows out of the store."""

from __future__ import annotations

import click

from autotune.cli import options as opt
from autotune.cli.options import options, status_of, store_to_read
from autotune.cli.text import echo, say


@click.command(cls=opt.Verb, short_help="Delete results of a workload, a run, a target, or what is stale.")
@click.argument("digest", required=False)
@options(
    click.option("--run", metavar="ID", help="Only what this run recorded; the beginning of its id."),
    click.option("--target", metavar="TEXT", help="Only of targets whose name contains TEXT."),
    click.option("--stale", is_flag=True, help="Only of other versions of the kernels than the present."),
    click.option("--failures", is_flag=True, help="What failed or was found wrong, too: it may be tried again."),
    click.option("--yes", "-y", is_flag=True, help="Do not ask."),
    opt.db,
    opt.json,
)
def forget(
    digest: str | None,
    run: str | None,
    target: str | None,
    stale: bool,
    failures: bool,
    yes: bool,
    db: str | None,
    as_json: bool,
) -> int:
    """Delete results from the store: those of the workload DIGEST, of a run, of a target, or what is stale.

    Of several of these, what fits all. What failed or was found wrong stays, so that it is not served or tried again,
    unless --failures asks for it. It says how much it would delete, and asks.

    \b
    Examples:
      autotune forget 5f0c1e
      autotune forget --stale --target M3
    """
    if not (digest or run or target or stale):
        raise click.UsageError("give a DIGEST, --run, --target or --stale")
    if as_json and not yes:
        raise click.UsageError("--json cannot ask: add --yes")

    from autotune.forget import chosen as subjects
    from db.forget import count
    from db.forget import forget as forgotten
    from db.store import Store

    _, read = store_to_read(db=db)
    of, run_id = subjects(read, digest, run, target, stale)
    found = count(read, of, run_id, failures)
    told = f"{found.rows} rows in {read.where}, {found.accepted} of accepted schedules"
    kept = f"; {found.kept} of what failed stay (--failures)" if found.kept else ""
    if found.rows and not yes and not click.confirm(f"delete {told}{kept}?", err=True):
        return 0
    if found.rows:
        found = forgotten(Store.open(db), of, run_id, failures)
    if as_json:
        say({"deleted": found.rows, "accepted": found.accepted, "kept": found.kept, "store": read.where})
    else:
        echo(f"{told} deleted{kept}" if found.rows else f"there is nothing to delete in {read.where}{kept}")
    return status_of(read)
