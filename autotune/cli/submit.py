"""`autotune submit`: one device's winners as a file for the packaged store, and the check of such files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from autotune.cli import options as opt
from autotune.cli.options import options, status_of, store_to_read, this_target, workloads_of
from autotune.cli.text import echo, line_width, say

if TYPE_CHECKING:
    from autotune.submission import Submission


@click.command(cls=opt.Verb, short_help="Write this device's results to a file for the packaged store.")
@click.argument("model", required=False)
@options(
    click.option("--all", "every", is_flag=True, help="The results of all models, instead of those of MODEL."),
    click.option(
        "-o",
        "--output",
        default=".",
        metavar="FILE",
        help="File, or folder of a file that is named after the device; - is stdout. [.]",
    ),
    click.option("--target", metavar="TEXT", help="Of the target whose name contains TEXT, not of this device."),
    opt.ctx,
    click.option("--check", metavar="FOLDER", help="Check all files in FOLDER, such as db/rows, and write nothing."),
    click.option("--only-adds", metavar="OLD", help="Of a check: FOLDER only adds to OLD, its earlier state."),
    opt.device,
    opt.db,
    opt.json,
)
def submit(
    model: str | None,
    every: bool,
    output: str,
    target: str | None,
    ctx: int | None,
    check: str | None,
    only_adds: str | None,
    device: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """Write this device's results to one readable file, which a pull request adds to the packaged store.

    The file has what was measured here and is served: schedules, times of the winners and of their baselines, errors,
    and the versions of everything that the times depend on. Other rows that it has already stay. docs/sharing.md says
    what happens to it. With --check nothing is written: status 1 names each row that could not be merged.

    \b
    Examples:
      autotune submit model.gguf
      autotune submit --all -o db/rows
      autotune submit --check db/rows --only-adds ../main/db/rows
    """
    if check is not None:
        if model or every:
            raise click.UsageError("--check takes neither a MODEL nor --all")
        return _check(check, only_adds, as_json)
    if only_adds is not None:
        raise click.UsageError("--only-adds is for --check")
    if (model is None) != every:
        raise click.UsageError("give a MODEL or --all" if not every else "--all takes no MODEL")
    if as_json and output == "-":
        raise click.UsageError("stdout has the results themselves: --json reports on a file (-o)")

    from autotune import submission, transfer

    chosen, store = store_to_read(db=db, device=device)
    of = this_target(chosen) if target is None else transfer.one_target(store, target)
    found = submission.submission(store, of, workloads_of(model, of.backend, ctx) if model else None)
    if not found.payload["finals"]:
        raise submission.SubmissionError(_nothing(found, model))
    if output == "-":
        say(found.payload)
        return status_of(store)
    path, rows = submission.write(found, output)
    count = len(found.payload["finals"])
    if as_json:
        about = {"target": str(of), "rows": count, "rows_of_file": rows, "busy": found.busy}
        say({"file": str(path), **about, "left_out": dict(found.left_out)})
        return status_of(store)
    echo(f"{count} rows of {of} written to {path}" + (f", which has {rows} now" if rows != count else ""))
    for reason, left in found.left_out.items():
        echo(f"{left} left out: {reason}")
    if found.busy:
        echo(f"{found.busy} were timed while other programs kept this machine busy; sweep again before you submit them")
    return status_of(store)


def _nothing(found: Submission, model: str | None) -> str:
    of = f" of {model}" if model else ""
    left = "".join(f"; {count} left out: {reason}" for reason, count in found.left_out.items())
    return f"nothing{of} was tuned on {found.target}: `autotune sweep` does that{left}"


def _check(folder: str, old: str | None, as_json: bool) -> int:
    from autotune import jsonable
    from autotune.report.submit import examined
    from autotune.submission_check import examine

    found = examine(folder, old)
    if as_json:
        say(jsonable.examined(found))
    else:
        echo(examined(found, line_width()))
    return 1 if found.problems else 0
