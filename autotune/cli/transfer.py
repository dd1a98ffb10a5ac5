"""`autotune export` and `import`: moving what a store holds to another machine."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from autotune.cli import options as opt
from autotune.cli.options import INTERRUPTED, options, settings, status_of, store_to_read
from autotune.cli.text import UTF8, echo, read_stdin, say, tell

if TYPE_CHECKING:
    from autotune.settings import Settings
    from autotune.verify import Checked
    from db.store import Winner


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
    from kernels.ops.registry import check_op

    if op is not None:
        check_op(op)
    if as_json and output == "-":
        raise click.UsageError("stdout has the export itself: --json reports on one that goes to a file (-o)")
    _, store = store_to_read(db=db)
    payload = transfer.export(store, target, op, format_)
    if output == "-":
        say(payload)
        return status_of(store)
    transfer.refuse_itself(store, output)
    transfer.write(payload, output)
    count = len(payload["finals"])
    if as_json:
        say({"file": output, "finals": count, "runs": len(payload["runs"])})
    else:
        echo(f"{count} schedules written to {output}")
    return status_of(store)


@click.command("import", cls=opt.Verb, short_help="Add the results in FILE to the store, once they are found right.")
@click.argument("file")
@options(
    click.option(
        "--verify/--no-verify",
        default=True,
        help="Check what is for this device before it is served. [on]",
    ),
    opt.workers,
    opt.device,
    opt.db,
    opt.json,
)
def import_(file: str, verify: bool, workers: int | None, device: str | None, db: str | None, as_json: bool) -> int:
    """Add the results in FILE (of `autotune export`; - is stdin) to the store: all of them, or none if one is bad.

    What others found is a claim. Each schedule for this device is compiled and run here on random inputs with two
    seeds, and is served only if it computes what the weights say; status 1 if one does not. What is for other devices,
    or for other versions of the kernels, is stored and not served. After Ctrl-C the same command goes on from there;
    with --no-verify, `autotune verify --schedules` does the checks.

    \b
    Example:
      autotune import opts.json
    """
    from autotune import transfer
    from db.exchange import import_parsed
    from db.payload import parse
    from db.store import Store

    read = transfer.read(file, lambda most: read_stdin("the export", UTF8, most))
    chosen = settings(db=db, device=device, workers=workers)
    store = Store.open(chosen.db)
    payload = parse(read)
    counts = import_parsed(store, payload)
    if not as_json:
        echo(f"{counts.measurements} rows are new, {counts.known} were known; stored in {store.where}")
    claims, wrong = transfer.claims_of(store, payload), transfer.found_wrong(store, payload)
    try:
        found, unserved = _checks(chosen, claims, as_json) if verify else ([], Counter({"not checked": len(claims)}))
    except KeyboardInterrupt:
        tell("stopped; what was checked stays so, and the same command goes on from there")
        return INTERRUPTED
    unserved["found wrong here before"] += wrong
    about = {"new": counts.measurements, "known": counts.known, "runs": counts.runs, "store": store.where}
    return _told(found, +unserved, about if as_json else None)


def _checks(chosen: Settings, claims: Sequence[Winner], quiet: bool) -> tuple[list[Checked], Counter[str]]:
    """Checks the claims that are for this device, behind a bar on a terminal; and how many are not checked, and why."""
    from autotune.session import choose

    if not claims:
        return [], Counter()
    backend = choose(chosen).device.partition(":")[0]
    if all(c.row.measurement.target.backend.partition(":")[0] != backend for c in claims):
        return [], Counter({"for another target": len(claims)})  # no need to open the device

    from autotune.claims import sorted_out
    from autotune.progress import counted
    from autotune.session import session
    from autotune.verify import verify_claims

    found = []
    with session(chosen) as s:
        fit, unserved = sorted_out(claims, s.info.target)
        shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
        with counted("schedules", len(fit), shown) as step:
            for checked in verify_claims(s, "autotune import", fit):
                step()
                found.append(checked)
    return found, unserved


def _told(found: Sequence[Checked], unserved: Counter[str], about: dict[str, object] | None) -> int:
    """Prints what became of the claims, as JSON with what is `about` the import. The status."""
    from autotune import jsonable
    from autotune.render import heading
    from autotune.report.verify import VERIFY, checked_row

    bad = [c for c in found if not c.ok]
    counts = Counter(c.status for c in found)
    if about is not None:
        checks = {status: counts[status] for status in ("right", "wrong", "unchecked", "skipped")}
        say({**about, **checks, "not_served": dict(unserved), "failed": [jsonable.checked(c) for c in bad]})
    else:
        if found:
            echo(f"{counts['right']} of {len(found)} schedules are right on this device, and may be served")
        if bad:
            echo("\n".join([heading(VERIFY), *map(checked_row, bad)]))
        for reason, count in unserved.items():
            echo(f"{count} are not served: {reason}")
    return 1 if bad else 0
