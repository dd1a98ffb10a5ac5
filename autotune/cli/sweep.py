"""`autotune sweep`: the command and its lines of output as they come."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import click

from autotune import __version__
from autotune.cli import options as opt
from autotune.cli.options import INTERRUPTED, options, plan_header, plan_of, settings
from autotune.cli.text import echo, say, say_line, tell
from db.errors import file_errors

if TYPE_CHECKING:
    from autotune.deployed import Deployed
    from autotune.progress import Bar
    from autotune.result import Result
    from autotune.session import Session
    from autotune.settings import Settings
    from autotune.sweep import Row, Sweep
    from autotune.workloads import ModelPlan
    from db.records import Workload
    from kernels.models.header import Header

DEMO_BUDGET_SECONDS = 2.0
BANDWIDTH_GBPS = 100.0  # a small Mac, or a PC with two channels of DDR5


@click.command(cls=opt.Verb)
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@options(
    click.option("--demo", is_flag=True, help="Sweep a small generated model, 2 s a workload, instead of MODEL."),
    opt.m,
    opt.ctx,
    opt.exact,
    opt.linears,
    click.option("--again", is_flag=True, help="Tune anew what is stored or shipped, too."),
    click.option(
        "--deployed/--no-deployed",
        default=None,
        help="Keep what was found only if a captured token of the model is faster with it; not with --fleet. [on]",
    ),
    click.option(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="Seconds for each workload, with all that it takes. [env: AUTOTUNE_BUDGET; 4]",
    ),
    click.option(
        "--beam", type=int, metavar="N", help="Schedules kept at each step of the search. [env: AUTOTUNE_BEAM; 4]"
    ),
    opt.workers,
    click.option(
        "--heuristic",
        is_flag=True,
        help="Also time tinygrad's heuristic, which gain compares with; takes up to a minute a workload.",
    ),
    click.option("--dry-run", is_flag=True, help="List every launch of a pass and its floor; open no device."),
    click.option(
        "--bandwidth",
        type=float,
        callback=opt.positive,
        metavar="GB/S",
        default=BANDWIDTH_GBPS,
        help=f"Of a dry run: what the floor assumes of memory. [{BANDWIDTH_GBPS:g}]",
    ),
    click.option(
        "--tflops",
        type=float,
        callback=opt.positive,
        metavar="N",
        help="Of a dry run: what the floor assumes of arithmetic.",
    ),
    opt.threads,
    opt.device,
    click.option(
        "--fleet",
        metavar="WHERE",
        help="Tune on many devices: local (all of this machine), local:N, or a Dask scheduler as tcp://host:8786.",
    ),
    opt.db,
    opt.json,
)
def sweep(
    models: tuple[str, ...],
    demo: bool,
    m: tuple[int, ...],
    ctx: int | None,
    exact: bool,
    linears: bool,
    again: bool,
    deployed: bool | None,
    budget: float | None,
    beam: int | None,
    workers: int | None,
    heuristic: bool,
    dry_run: bool,
    bandwidth: float,
    tflops: float | None,
    device: str | None,
    fleet: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """Tune every kernel of each MODEL that was not searched with as much --budget and --beam before.

    MODEL is a GGUF file: a path, an http(s):// URL or hf://owner/repo/file.gguf. Only its header is read. The kernels
    of one decoded token are tuned, and with --m 1,32,512 those of a prompt, too. Results are stored as they come; after
    Ctrl-C the same command goes on from there. At the end a token of the model is timed on random weights, with
    what was found and without it: what does not make the token faster is not served.

    \b
    Examples:
      autotune sweep model.gguf --m 1,512 --budget 30
      autotune sweep small.gguf large.gguf
    """
    if demo == bool(models):
        raise click.UsageError("give a MODEL or --demo" if not demo else "--demo brings its own model: leave MODEL out")
    budget = DEMO_BUDGET_SECONDS if demo and budget is None else budget
    chosen = settings(
        db=db,
        device=device,
        budget_seconds=budget,
        beam_width=beam,
        workers=workers,
        heuristic=heuristic,
        exact=exact,
    )
    models = models or (_demo_model(),)
    if dry_run:
        device = chosen.device or ""
        plans = {model: plan_of(model, device, m, ctx, linears, exact) for model in dict.fromkeys(models)}
        return _dry_run(plans, bandwidth, tflops, as_json)

    if fleet is not None:
        if deployed:
            raise click.UsageError("--deployed: a fleet times no token; sweep without --fleet afterwards")
        from autotune.cli.fleet import sweep_fleet

        named = [(model, _command(model)) for model in dict.fromkeys(models)]
        return _stoppable(lambda: sweep_fleet(fleet, named, (m, ctx, linears, exact), chosen, as_json, again=again))

    from autotune.session import choose

    device = choose(chosen).device
    found = [_Model.read(model, device, m, ctx, linears, exact) for model in dict.fromkeys(models)]
    return _stoppable(lambda: _sweep(found, chosen, as_json, again=again, deployed=deployed is not False))


def _stoppable(action: Callable[[], int]) -> int:
    try:
        return action()
    except KeyboardInterrupt:
        tell("stopped; what was measured is stored, and the same command goes on from there")
        return INTERRUPTED


def _demo_model() -> str:
    from autotune.demo import write_demo_model
    from kernels.cache import cache_folder

    path = cache_folder() / f"demo-{__version__}.gguf"
    if not path.exists():
        draft = path.with_suffix(f".{os.getpid()}")
        with file_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_demo_model(draft).replace(path)
            finally:
                draft.unlink(missing_ok=True)
    return str(path)


def _dry_run(plans: Mapping[str, ModelPlan], gbps: float, tflops: float | None, as_json: bool) -> int:
    from autotune.report.plan import plan_table
    from autotune.workloads import Roof, plan_to_json

    several = len(plans) > 1
    if as_json:
        named = [({"model": _name(model)} if several else {}, plan) for model, plan in plans.items()]
        say([{**name, **workload} for name, plan in named for workload in plan_to_json(plan)])
    else:
        roof = Roof(gbps * 1e9, None if tflops is None else tflops * 1e12)
        for model, plan in plans.items():
            title = [f"{_name(model)}:"] if several else []
            echo("\n".join([*title, *(f"note: {note}" for note in plan.notes), plan_table(plan, roof)]))
    return 0


@dataclass(frozen=True)
class _Model:
    """A model to sweep. name: the file's, without the place where it lies on this machine."""

    name: str
    header: Header
    plan: ModelPlan
    context: int

    @classmethod
    def read(cls, model: str, device: str, m: tuple[int, ...], ctx: int | None, linears: bool, exact: bool) -> Self:
        from kernels.models.header import read_header
        from kernels.models.passes import CONTEXT

        header = read_header(model)
        plan = plan_header(header, device, m, ctx, linears, exact)
        return cls(_name(model), header, plan, CONTEXT if ctx is None else ctx)

    @property
    def command(self) -> str:
        return _command(self.name)


def _command(model: str) -> str:
    """What an export says of the run: the file's name, not where it lies on this machine."""
    return f"autotune sweep {_name(model)}"


def _name(model: str) -> str:
    return model.partition("?")[0].rpartition("/")[2]


def _sweep(models: Sequence[_Model], chosen: Settings, as_json: bool, *, again: bool, deployed: bool) -> int:
    from autotune.session import session

    start = time.monotonic()
    with session(chosen) as s:
        from autotune import jsonable  # while the device opens
        from autotune.report.doctor import chosen_device
        from autotune.report.sweep import sweep_heading, token_line
        from autotune.sweep import Sweep

        target = s.info.target
        busy = s.load.note()
        notes = list(dict.fromkeys(note for model in models for note in model.plan.notes))
        notes += [f"{busy}: timings are noisy, and are marked with it"] if busy else []
        if as_json:
            about = {"notes": notes, "target": str(target), "store": s.store.where}
            say_line("start", **jsonable.choice(s.choice), **about)
        else:
            lines = [f"note: {note}" for note in notes]
            echo("\n".join([chosen_device(s.choice), f"target {target}", *lines]))
            echo(sweep_heading(_width()))
        done: dict[Workload, Result] = {}
        sweeps = [Sweep(s, model.plan, model.command, again=again, done=done) for model in models]
        rows, passes = _swept(s, models, sweeps, done, as_json, deployed=deployed)
        lines = [token_line(d, name if len(models) > 1 else "") for name, d in passes]
        return end(rows, time.monotonic() - start, s.store.where, as_json, lines)


def end(rows: Sequence[Row], seconds: float, where: str, as_json: bool, lines: Sequence[str] = ()) -> int:
    """Prints a sweep's summary, and `lines` after it for people. The exit status."""
    from autotune import jsonable
    from autotune.report.sweep import sweep_summary

    if as_json:
        say_line("summary", **jsonable.sweep_summary(rows, seconds))
    else:
        echo("\n".join([sweep_summary(rows, seconds, where), *lines]))
    return 1 if any(row.result.status == "failed" for row in rows) else 0


def show(row: Row, bar: Bar, as_json: bool, of: Mapping[str, str], width: int, note: str = "") -> None:
    """Prints a row above the bar. of: what a JSON line says besides. note: behind a line for people."""
    from autotune import jsonable
    from autotune.report.sweep import sweep_row

    bar.clear()
    if as_json:
        say_line("workload", **of, **jsonable.sweep_row(row))
    else:
        echo(sweep_row(row, width) + note)


def _swept(
    s: Session,
    models: Sequence[_Model],
    sweeps: Sequence[Sweep],
    done: dict[Workload, Result],
    as_json: bool,
    *,
    deployed: bool,
) -> tuple[list[Row], list[tuple[str, Deployed]]]:
    """The rows of one model after another, each printed as it comes, and what the models' passes gained; under a
    progress bar if stderr is a terminal."""
    from autotune import jsonable
    from autotune.deployed import AsDeployed
    from autotune.progress import Bar

    rows: list[Row] = []
    passes: list[tuple[str, Deployed]] = []
    todo = {mw.workload for sweep in sweeps for mw in sweep.todo}
    timing = AsDeployed(s) if deployed else None
    with Bar(len(todo), s.settings.budget_seconds, sys.stderr.isatty(), len(models) if deployed else 0) as bar:
        for model, sweep in zip(models, sweeps, strict=True):
            of_model = {"model": model.name} if len(models) > 1 else {}
            if of_model and not as_json:
                bar.clear()
                echo(f"{model.name}:")
            with closing(sweep.rows(bar.update)) as coming:
                for row in coming:
                    show(row, bar, as_json, of_model, _width())
                    w = row.result.workload
                    if w in todo and w not in done:
                        bar.finished()
                        done[w] = row.result
                    rows.append(row)
            if timing is None:
                continue
            bar.deploying(model.name)
            asked = model.header, model.context, model.plan.workloads, model.command
            found = timing.passes(*asked, functools.partial(bar.deploying, model.name))
            bar.deployed()
            passes += [(model.name, d) for d in found]
            for d in found if as_json else ():
                say_line("token", model=model.name, token=jsonable.deployed(d))
    return rows, passes


def _width() -> int:
    """Columns of the terminal; of what is no terminal, enough."""
    return shutil.get_terminal_size((1 << 10, 24)).columns
