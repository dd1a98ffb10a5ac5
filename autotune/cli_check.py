"""`autotune explain`, `verify` and `doctor`: what serves a model, whether it is right, and what is missing."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from autotune import cli_options as opt
from autotune.cli_options import options, plan_of, say, say_line, settings, this_target


@click.command(short_help="Tell which lookup step serves each kernel of MODEL here.")
@click.argument("model")
@options(opt.m, opt.ctx, opt.device, opt.db, opt.json)
def explain(model: str, m: tuple[int, ...], ctx: int | None, device: str | None, db: str | None, as_json: bool) -> int:
    """Tell which lookup step serves each kernel of MODEL here: what `kernels` in Python will use.

    \b
    Example:
      autotune explain model.gguf
    """
    from autotune import jsonable, reports
    from autotune.explain import explain as explained
    from autotune.transfer import served_if_any
    from db.lookup import Lookup

    chosen = settings(db=db, device=device)
    plan = plan_of(model, m, ctx)
    lookup = Lookup(chosen.db)
    rows = explained(plan, this_target(chosen), lookup, chosen.lookup, served_if_any(chosen.db))
    for problem in lookup.problems:
        click.echo(f"note: {problem}", err=True)
    if as_json:
        say([jsonable.explained(e) for e in rows])
    else:
        click.echo("\n".join([*(f"note: {note}" for note in plan.notes), reports.explanation(rows)]))
    return 0


@click.command(short_help="Check what is stored for this device again.")
@options(
    opt.format,
    opt.m,
    click.option("--defaults", is_flag=True, help="Check the hand-chosen schedules of the stored workloads too."),
    opt.workers,
    opt.device,
    opt.db,
    opt.json,
)
def verify(
    formats: tuple[str, ...],
    m: tuple[int, ...],
    defaults: bool,
    workers: int | None,
    device: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """Check what is stored for this device again, with two seeds each; what is wrong is withdrawn.

    Schedules that were accepted for another version of a kernel's source are replayed: checked under the current one
    and, if right, timed and accepted. Status 1 if anything is wrong.

    \b
    Example:
      autotune verify --format Q4_K
    """
    from autotune import jsonable, reports
    from autotune.render import heading
    from autotune.session import session
    from autotune.verify import verify as verified

    bad = count = 0
    with session(settings(db=db, device=device, workers=workers)) as s:
        if not as_json:
            click.echo(f"{reports.choice(s.choice)}\ntarget {s.info.target}\n{heading(reports.VERIFY)}")
        for checked in verified(s, "autotune verify", formats, m, defaults):
            count, bad = count + 1, bad + (not checked.ok)
            if as_json:
                say_line("checked", **jsonable.checked(checked))
            else:
                click.echo(reports.checked_row(checked))
    if not as_json:
        click.echo(f"{count} schedules checked, {bad} not right" if count else "nothing is stored for this target")
    return 1 if bad else 0


@click.command()
@options(opt.device, opt.db, opt.json)
def doctor(device: str | None, db: str | None, as_json: bool) -> int:
    """Tell what this machine has for tuning, what is missing, and the remedy. Status 1 if tuning cannot work.

    \b
    Example:
      autotune doctor
    """
    from autotune import reports
    from autotune.doctor import examine

    chosen = settings(db=db, device=device)
    environ = {**os.environ, **({"DEV": chosen.device} if chosen.device else {})}
    report = examine(chosen.db, environ)
    if as_json:
        say(asdict(report))
    else:
        click.echo(reports.doctor(report))
    return 0 if report.ok else 1
