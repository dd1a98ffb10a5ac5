"""`autotune explain` and `doctor`: what serves a model here, and what this machine lacks."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from autotune.cli import options as opt
from autotune.cli.options import options, plan_of, settings, settings_to_read, this_target, versions_here
from autotune.cli.text import echo, line_width, say, tell


@click.command(cls=opt.Verb, short_help="Tell which lookup step serves each kernel of MODEL here.")
@click.argument("model")
@options(opt.m, opt.ctx, opt.exact, opt.threads, opt.device, opt.db, opt.json)
def explain(
    model: str, m: tuple[int, ...], ctx: int | None, exact: bool, device: str | None, db: str | None, as_json: bool
) -> int:
    """Tell which lookup step serves each kernel of MODEL here: what `kernels` in Python will use.

    \b
    Example:
      autotune explain model.gguf
    """
    from autotune import jsonable
    from autotune.explain import explain as explained
    from autotune.report.explain import explanation
    from autotune.session import choose
    from autotune.transfer import served_if_any
    from db.lookup import Lookup
    from kernels.ops.tolerance import tolerance

    chosen = settings_to_read(db=db, device=device)
    plan = plan_of(model, choose(chosen).device, m, ctx, exact=exact)
    lookup = Lookup(chosen.db, limit=tolerance)
    target = this_target(chosen)
    rows = explained(plan, target, lookup, chosen.lookup, served_if_any(chosen.db), versions_here(chosen))
    for problem in lookup.problems:
        tell(f"note: {problem}")
    if as_json:
        say([jsonable.explained(e) for e in rows])
    else:
        echo("\n".join([*(f"note: {note}" for note in plan.notes), explanation(rows, line_width())]))
    return 0


@click.command(cls=opt.Verb)
@options(opt.threads, opt.device, opt.db, opt.json)
def doctor(device: str | None, db: str | None, as_json: bool) -> int:
    """Tell what this machine has for tuning, what is missing, and the remedy. Status 1 if tuning cannot work.

    \b
    Example:
      autotune doctor
    """
    from autotune.doctor import examine
    from autotune.report.doctor import examination

    chosen = settings(db=db, device=device)
    environ = {**os.environ, **({"DEV": chosen.device} if chosen.device else {})}
    report = examine(chosen.db, environ)
    if as_json:
        say(asdict(report))
    else:
        echo(examination(report))
    return 0 if report.ok else 1
