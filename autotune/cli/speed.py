"""`autotune bench` and `profile`: how fast a whole model is over the tuned kernels, and where its time goes."""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click

from autotune.cli import options as opt
from autotune.cli.model import ctx, loaded
from autotune.cli.options import options, settings_to_read
from autotune.cli.text import echo, say, tell

if TYPE_CHECKING:
    from kernels.devices import Choice


@click.command(cls=opt.Verb, short_help="Measure tokens a second of MODEL.")
@click.argument("model")
@options(
    click.option("--prompt-tokens", type=click.IntRange(1), default=512, metavar="N", help="Of the prompt. [512]"),
    click.option("--tokens", type=click.IntRange(1), default=64, metavar="N", help="To decode and time. [64]"),
    click.option(
        "--position", type=click.IntRange(0), default=0, metavar="N", help="Decode from there on as well as from 0."
    ),
    click.option("--compare", is_flag=True, help="Measure tinygrad.llm as it is and llama.cpp, too."),
    ctx,
    opt.exact,
    opt.threads,
    opt.device,
    opt.db,
    opt.json,
)
def bench(
    model: str,
    prompt_tokens: int,
    tokens: int,
    position: int,
    compare: bool,
    ctx: int | None,
    exact: bool,
    device: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """Measure tokens a second of MODEL: of a prompt up to the first token after it, and of decoding.

    Decoding is the median of blocks of tokens. The floor is the time in which a copy on this device moves as many bytes
    as a token reads of weights. Compared are others in processes of their own, with equal prompts.

    \b
    Example:
      autotune bench model.gguf --compare
    """
    from dataclasses import replace

    from autotune.competitors import COMPETITORS, competitor
    from autotune.loaded_model import plan_model
    from autotune.report import model as model_report
    from autotune.session import choose
    from autotune.speed import Asked, launches, speed
    from kernels.models.header import read_header

    chosen = settings_to_read(db=db, device=device)
    choice = choose(chosen)
    plan = plan_model(read_header(model), choice, ctx, exact)
    asked = Asked(prompt_tokens, tokens, position, plan.context, plan.vocabulary)
    with _alone(choice):
        _note_load()
        bandwidth = _bandwidth(choice)
        others = []
        for name in COMPETITORS if compare else ():  # before our model takes its part of the device's memory
            tell(f"measuring {name}")
            others.append(competitor(name, model, asked, choice))
        ready = loaded(plan, chosen, choice)
        with ready.running():
            ours = replace(speed("autotune", ready.model, asked), launches=launches(ready.model))
    results = [ours, *others]
    if as_json:
        told = model_report.bench_json(results, ready.weights_nbytes, bandwidth)
        say({**model_report.loaded_model_json(ready), **told})
    else:
        echo(model_report.bench(results, ready.weights_nbytes, bandwidth))
    return 0


@click.command(cls=opt.Verb, short_help="Tell where a token's time goes, kernel by kernel.")
@click.argument("model")
@options(
    click.option("--tokens", type=click.IntRange(1), default=8, metavar="N", help="To time. [8]"),
    click.option(
        "--by", type=click.Choice(["op", "kernel"]), default="kernel", help="What a row of the table is. [kernel]"
    ),
    ctx,
    opt.exact,
    opt.threads,
    opt.device,
    opt.db,
    opt.json,
)
def profile(
    model: str, tokens: int, by: str, ctx: int | None, exact: bool, device: str | None, db: str | None, as_json: bool
) -> int:
    """Tell where the time of a decoded token goes: kernel, total, count, time a call, share. Largest first.

    Every launch is waited for and timed by itself, on the device's clock where it has one; a token takes longer so.

    \b
    Example:
      autotune profile model.gguf --by op
    """
    from autotune import kernel_profile
    from autotune.loaded_model import plan_model
    from autotune.report import model as model_report
    from autotune.session import choose
    from kernels import devices
    from kernels.models.header import read_header

    chosen = settings_to_read(db=db, device=device)
    choice = choose(chosen)
    plan = plan_model(read_header(model), choice, ctx, exact)
    with _alone(choice):
        ready = loaded(plan, chosen, choice)
        with ready.running():
            found = kernel_profile.profile(ready.model, tokens)
    clock = devices.clock(choice.device)
    if as_json:
        say({**model_report.loaded_model_json(ready), **model_report.profile_json(found, by, clock)})
    else:
        echo(model_report.profile(found, by, clock))
    return 0


def _alone(choice: Choice) -> AbstractContextManager[None]:
    """The device, without another command that measures on it."""
    from autotune.device_lock import alone

    waiting = functools.cache(lambda: tell("waiting for the device: another command measures on it"))
    return alone(choice.device, waiting)


def _note_load() -> None:
    """A figure of a busy machine is none of the model."""
    busy, cpus = os.getloadavg()[0], os.cpu_count() or 1
    if busy > cpus / 2:
        tell(f"note: this machine is busy (load {busy:.1f} on {cpus} CPUs): figures will be too low")


def _bandwidth(choice: Choice) -> float | None:
    """Of a copy, measured in a process that has ended before the model is loaded."""
    from autotune.trial.runner import Runner, RunnerError

    with Runner(choice) as runner:
        try:
            return runner.copy_bandwidth()
        except RunnerError as e:
            tell(f"note: {e}")
            return None
