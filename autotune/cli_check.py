"""`autotune explain`, `verify` and `doctor`: what serves a model, whether it is right, and what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from autotune import cli_options as opt
from autotune.cli_options import options, plan_of, settings, this_target
from autotune.cli_text import echo, say, say_line, tell

if TYPE_CHECKING:
    from autotune.settings import Settings
    from autotune.verify import Checked
    from db.records import Target, Workload
    from kernels.devices import Choice


@click.command(cls=opt.Verb, short_help="Tell which lookup step serves each kernel of MODEL here.")
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
    from autotune.session import choose
    from autotune.transfer import served_if_any
    from db.lookup import Lookup

    chosen = settings(db=db, device=device)
    plan = plan_of(model, choose(chosen).device, m, ctx)
    lookup = Lookup(chosen.db)
    rows = explained(plan, this_target(chosen), lookup, chosen.lookup, served_if_any(chosen.db))
    for problem in lookup.problems:
        tell(f"note: {problem}")
    if as_json:
        say([jsonable.explained(e) for e in rows])
    else:
        echo("\n".join([*(f"note: {note}" for note in plan.notes), reports.explanation(rows)]))
    return 0


@click.command(cls=opt.Verb, short_help="Check what is stored for this device again.")
@click.argument("model", required=False)
@options(
    opt.format,
    opt.m,
    opt.ctx,
    click.option("--defaults", is_flag=True, help="Check the hand-chosen schedules of the stored workloads too."),
    click.option("--target", metavar="NAME", help="Refuse any other device than NAME, such as METAL:Apple9."),
    click.option("--simulate", is_flag=True, help="Run Metal source on this machine's CPU; needs --target."),
    click.option(
        "--random", "count", type=int, default=0, metavar="N", help="N random schedules of each workload too."
    ),
    opt.workers,
    opt.device,
    opt.db,
    opt.json,
)
def verify(
    model: str | None,
    formats: tuple[str, ...],
    m: tuple[int, ...],
    ctx: int | None,
    defaults: bool,
    target: str | None,
    simulate: bool,
    count: int,
    workers: int | None,
    device: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """Check what is stored for this device again, with two seeds each; what is wrong is withdrawn.

    Schedules that were accepted for another version of a kernel's source are replayed: checked under the current one
    and, if right, timed and accepted. With MODEL, the hand-chosen schedules of all that it launches are checked too.

    With --simulate no Mac is needed: what is stored for any Metal device of the target's arch, and the hand-chosen and
    the heuristic's schedules of MODEL (or of a small workload for every op and format), are compiled from their Metal
    source for this CPU, run in three orders of threads, and judged. Status 1 if anything is wrong.

    \b
    Example:
      autotune verify --format Q4_K
      autotune verify --target METAL:Apple9 --simulate
    """
    from autotune.session import choose, session
    from autotune.verify import verify as verified

    chosen = settings(db=db, device=device, workers=workers)
    workloads = None
    if model:
        where = "METAL" if simulate else choose(chosen).device
        workloads = [found.workload for found in plan_of(model, where, m, ctx, linears=False).workloads]
    if simulate:
        return _simulated(chosen, target, workloads, formats, m, count, as_json)
    if count:
        raise click.UsageError("--random is for --simulate")
    with session(chosen) as s:
        if target and target.lower() not in (here := f"{s.info.target.backend}:{s.info.target.arch}").lower():
            raise click.UsageError(f"--target {target}: this device is {here}; METAL can be run with --simulate")
        found = verified(s, "autotune verify", formats, m, defaults, workloads or ())
        return _checked(found, (s.choice, s.info.target), as_json)


def _simulated(
    chosen: Settings,
    target: str | None,
    workloads: Sequence[Workload] | None,
    formats: tuple[str, ...],
    m: tuple[int, ...],
    count: int,
    as_json: bool,
) -> int:
    import uuid

    from autotune import simulate
    from autotune.catalogue import catalogue
    from db.records import Run
    from db.store import Store

    if target is None:
        raise click.UsageError("--simulate needs a --target, such as METAL:Apple9")
    arch = simulate.parse_target(target)
    store = Store.open(chosen.db)
    asked = [w for w in (catalogue() if workloads is None else workloads) if not m or w.m in m]
    todo = simulate.jobs(store, arch, asked, formats, count)
    run = Run(str(uuid.uuid4()), "autotune verify --simulate", 0, 0.0, (("clock", "none: simulated"),))
    found = simulate.simulate(store, run, arch, todo, chosen.workers)
    return _checked(found, (None, simulate.simulated_target(arch)), as_json, len(todo))


def _checked(
    found: Iterable[Checked], heading: tuple[Choice | None, Target], as_json: bool, total: int | None = None
) -> int:
    """Prints what is checked as it comes. Status 1 if anything is wrong."""
    from autotune import jsonable, reports
    from autotune.render import heading as columns

    choice, target = heading
    bad = count = 0
    if not as_json:
        if choice is not None:
            echo(reports.choice(choice))
        echo(f"target {target}\n{columns(reports.VERIFY)}")
    for checked in found:
        count, bad = count + 1, bad + (not checked.ok)
        if as_json:
            say_line("checked", **jsonable.checked(checked))
        else:
            echo(reports.checked_row(checked))
    if not as_json:
        of = f" of {total}" if total else ""
        echo(f"{count}{of} schedules checked, {bad} not right" if count else "nothing is stored for this target")
    return 1 if bad else 0


@click.command(cls=opt.Verb)
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
        echo(reports.doctor(report))
    return 0 if report.ok else 1
