"""`autotune sweep`: the command and its lines of output as they come."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import click

from autotune import __version__
from autotune.cli import options as opt
from autotune.cli.options import INTERRUPTED, options, plan_of, settings
from autotune.cli.text import echo, say, say_line, tell
from db.errors import file_errors

if TYPE_CHECKING:
    from autotune.settings import Settings
    from autotune.sweep import Row, Sweep
    from autotune.workloads import ModelPlan

DEMO_BUDGET_SECONDS = 2.0
BANDWIDTH_GBPS = 100.0  # a small Mac, or a PC with two channels of DDR5


@click.command(cls=opt.Verb)
@click.argument("model", required=False)
@options(
    click.option("--demo", is_flag=True, help="Sweep a small generated model, 2 s a workload, instead of MODEL."),
    opt.m,
    opt.ctx,
    opt.linears,
    click.option(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="Seconds for each workload. [env: AUTOTUNE_BUDGET; 5]",
    ),
    click.option(
        "--beam", type=int, metavar="N", help="Schedules kept at each step of the search. [env: AUTOTUNE_BEAM; 4]"
    ),
    opt.workers,
    click.option("--heuristic", is_flag=True, help="Also time tinygrad's heuristic; takes up to a minute a workload."),
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
    opt.device,
    opt.db,
    opt.json,
)
def sweep(
    model: str | None,
    demo: bool,
    m: tuple[int, ...],
    ctx: int | None,
    linears: bool,
    budget: float | None,
    beam: int | None,
    workers: int | None,
    heuristic: bool,
    dry_run: bool,
    bandwidth: float,
    tflops: float | None,
    device: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """Tune every kernel of MODEL that has no stored result of this effort yet.

    MODEL is a GGUF file: a path, an http(s):// URL or hf://owner/repo/file.gguf. Only its header is read. Results
    are stored as they come; after Ctrl-C the same command goes on from there.

    \b
    Example:
      autotune sweep model.gguf --m 1,8 --budget 30
    """
    if demo == (model is not None):
        raise click.UsageError("give a MODEL or --demo" if not demo else "--demo brings its own model: leave MODEL out")
    budget = DEMO_BUDGET_SECONDS if demo and budget is None else budget
    chosen = settings(
        db=db, device=device, budget_seconds=budget, beam_width=beam, workers=workers, heuristic=heuristic
    )
    model = model or _demo_model()
    if dry_run:
        return _dry_run(plan_of(model, chosen.device or "", m, ctx, linears), bandwidth, tflops, as_json)

    from autotune.session import choose

    plan = plan_of(model, choose(chosen).device, m, ctx, linears)
    # what an export says of the run: the file's name, not where it lies on this machine
    command = f"autotune sweep {model.partition('?')[0].rpartition('/')[2]}"
    try:
        return _sweep(plan, chosen, command, as_json)
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


def _dry_run(plan: ModelPlan, gbps: float, tflops: float | None, as_json: bool) -> int:
    from autotune.plan_report import plan_table
    from autotune.workloads import Roof, plan_to_json

    if as_json:
        say(plan_to_json(plan))
    else:
        roof = Roof(gbps * 1e9, None if tflops is None else tflops * 1e12)
        echo("\n".join([*(f"note: {note}" for note in plan.notes), plan_table(plan, roof)]))
    return 0


def _sweep(plan: ModelPlan, chosen: Settings, command: str, as_json: bool) -> int:
    from autotune.session import session

    start = time.monotonic()
    with session(chosen) as s:
        from autotune import jsonable, reports  # while the device opens
        from autotune.render import heading
        from autotune.sweep import Sweep

        target = s.info.target
        busy = s.load.note()
        notes = [*plan.notes, *([f"{busy}: timings are noisy, and are marked with it"] if busy else [])]
        if as_json:
            about = {"notes": notes, "target": str(target), "store": s.store.where}
            say_line("start", **jsonable.choice(s.choice), **about)
        else:
            lines = [f"note: {note}" for note in notes]
            echo("\n".join([reports.choice(s.choice), f"target {target}", *lines]))
            echo(heading(reports.SWEEP))
        rows = _swept(Sweep(s, plan, command), chosen.budget_seconds, as_json)
        seconds = time.monotonic() - start
        if as_json:
            say_line("summary", **jsonable.sweep_summary(rows, seconds))
        else:
            echo(reports.sweep_summary(rows, seconds, s.store.where))
    return 1 if any(row.result.status == "failed" for row in rows) else 0


def _swept(sweep: Sweep, budget_seconds: float, as_json: bool) -> list[Row]:
    """The rows, each printed as it comes, under a progress bar if stderr is a terminal."""
    from autotune import jsonable, reports
    from autotune.progress import Bar

    rows = []
    with Bar(len(sweep.todo), budget_seconds, sys.stderr.isatty()) as bar, closing(sweep.rows(bar.update)) as coming:
        for row in coming:
            bar.clear()
            if as_json:
                say_line("workload", **jsonable.sweep_row(row))
            else:
                echo(reports.sweep_row(row))
            if row.model in sweep.todo:
                bar.finished()
            rows.append(row)
    return rows
