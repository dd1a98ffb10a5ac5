"""`autotune run`, `bench` and `profile`: a whole model over the tuned kernels."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import click

from autotune import cli_options as opt
from autotune.cli_options import options, say, settings

if TYPE_CHECKING:
    from autotune.opened import Opened
    from autotune.settings import Settings
    from autotune.tokenizer import Tokenizer
    from kernels.devices import Choice
    from kernels.models.header import Header


def _warmth(_: click.Context, option: click.Parameter, given: float) -> float:
    """click's own ranges have NaN in them."""
    if not 0 <= given < math.inf:
        raise click.BadParameter(f"{given}: expected 0 or more", param=option)
    return given


ctx = click.option("--ctx", type=int, metavar="N", help="Tokens that fit the cache. [4096, or the model's]")


@click.command(short_help="Generate text with MODEL.")
@click.argument("model")
@click.argument("prompt", required=False)
@options(
    click.option("--max-tokens", type=click.IntRange(1), default=128, metavar="N", help="Stop after as many. [128]"),
    click.option(
        "--temperature",
        type=float,
        callback=_warmth,
        default=0.0,
        metavar="T",
        help="0: always the likeliest token. [0]",
    ),
    ctx,
    click.option("--ids", metavar="IDS", help="The prompt as token ids, as in 1,2,3; needs no tokenizer."),
    opt.device,
    opt.db,
    opt.json,
)
def run(
    model: str,
    prompt: str | None,
    max_tokens: int,
    temperature: float,
    ctx: int | None,
    ids: str | None,
    device: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """Generate text with MODEL, a GGUF file, from PROMPT on; - reads it from stdin. Text goes to stdout as it comes.

    The prompt is taken as it is, without a chat template; special tokens may be written out in it. The line on stderr
    tells how many of the kernels are tuned, and what the model takes on the device.

    \b
    Example:
      autotune run model.gguf "Once upon a time"
    """
    if (prompt is None) == (ids is None):
        raise click.UsageError("give a PROMPT (- reads it from stdin) or --ids, and not both")
    chosen = settings(db=db, device=device)
    header = _header(model)
    tokenizer = _tokenizer(header, needed=ids is None)
    if ids is not None:
        tokens = _ids(ids, header)
    elif tokenizer is not None and prompt is not None:
        tokens = tokenizer.encode(sys.stdin.read() if prompt == "-" else prompt)
    opened = _open(model, header, chosen, ctx)

    from autotune import model_reports
    from autotune.generation import Generation

    generation, text = Generation(opened.model, tokenizer, tokens, max_tokens, temperature), ""
    for piece in generation:
        text += piece
        if not as_json:
            click.echo(piece, nl=False)
    if as_json:
        say({**model_reports.opened_json(opened), **model_reports.generation_json(generation, text)})
    else:
        click.echo()
        click.echo(model_reports.generation(generation), err=True)
    return 0


@click.command(short_help="Measure tokens a second of MODEL.")
@click.argument("model")
@options(
    click.option("--prompt-tokens", type=click.IntRange(1), default=512, metavar="N", help="Of the prompt. [512]"),
    click.option("--tokens", type=click.IntRange(1), default=64, metavar="N", help="To decode and time. [64]"),
    click.option(
        "--position", type=click.IntRange(0), default=0, metavar="N", help="Decode from there on as well as from 0."
    ),
    click.option("--compare", is_flag=True, help="Measure tinygrad.llm as it is and llama.cpp, too."),
    ctx,
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
    device: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """Measure tokens a second of MODEL: of a prompt up to the first token after it, and of decoding.

    Decoding is the median of single tokens, one after the other. The floor is the time in which a copy on this device
    moves as many bytes as a token reads of weights. Compared are others in processes of their own, with equal prompts.

    \b
    Example:
      autotune bench model.gguf --compare
    """
    chosen = settings(db=db, device=device)
    header = _header(model)

    from dataclasses import replace

    from autotune import model_reports
    from autotune.opened import context_of, vocabulary
    from autotune.rivals import RIVALS, rival
    from autotune.session import choose
    from autotune.speed import Asked, AskedError, launches, speed

    try:
        asked = Asked(prompt_tokens, tokens, position, context_of(header, ctx), vocabulary(header))
    except AskedError as e:
        raise click.UsageError(str(e)) from e
    choice = choose(chosen)
    bandwidth = _bandwidth(choice)
    others = []
    for name in RIVALS if compare else ():  # before our model takes its part of the device's memory
        click.echo(f"measuring {name}", err=True)
        others.append(rival(name, model, asked, choice))
    opened = _open(model, header, chosen, ctx)
    ours = replace(speed("autotune", opened.model, asked), launches=launches(opened.model))
    results = [ours, *others]
    if as_json:
        told = model_reports.bench_json(results, opened.weights_nbytes, bandwidth)
        say({**model_reports.opened_json(opened), **told})
    else:
        click.echo(model_reports.bench(results, opened.weights_nbytes, bandwidth))
    return 0


@click.command(short_help="Tell where a token's time goes, kernel by kernel.")
@click.argument("model")
@options(
    click.option("--tokens", type=click.IntRange(1), default=8, metavar="N", help="To time. [8]"),
    click.option(
        "--by", type=click.Choice(["op", "kernel"]), default="kernel", help="What a row of the table is. [kernel]"
    ),
    ctx,
    opt.device,
    opt.db,
    opt.json,
)
def profile(
    model: str, tokens: int, by: str, ctx: int | None, device: str | None, db: str | None, as_json: bool
) -> int:
    """Tell where the time of a decoded token goes: kernel, total, count, time a call, share. Largest first.

    Every launch is waited for and timed by itself, on the device's clock where it has one; a token takes longer so.

    \b
    Example:
      autotune profile model.gguf --by op
    """
    opened = _open(model, _header(model), settings(db=db, device=device), ctx)

    from autotune import kernel_profile, model_reports

    found = kernel_profile.profile(opened.model, tokens)
    device = opened.choice.device
    if as_json:
        say({**model_reports.opened_json(opened), **model_reports.profile_json(found, by, device)})
    else:
        click.echo(model_reports.profile(found, by, device))
    return 0


def _header(model: str) -> Header:
    from autotune.tokenizer import ARRAYS
    from kernels.models.header import read_header

    return read_header(model, keep=ARRAYS)


def _tokenizer(header: Header, needed: bool) -> Tokenizer | None:
    from autotune.tokenizer import TokenizerError, tokenizer

    try:
        return tokenizer(header)
    except TokenizerError:
        if needed:
            raise
        return None  # ids come out as they went in


def _ids(given: str, header: Header) -> list[int]:
    from autotune.opened import vocabulary

    count = vocabulary(header)
    try:
        found = [int(part) for part in given.split(",")]
    except ValueError:
        raise click.UsageError(f"--ids {given!r}: expected whole numbers, as in 1,2,3") from None
    if bad := [i for i in found if not 0 <= i < count]:
        raise click.UsageError(f"--ids: {bad[0]} is no token of this model, which has 0 to {count - 1}")
    return found


def _open(model: str, header: Header, chosen: Settings, ctx: int | None) -> Opened:
    """Opened, and one line on stderr that tells of it."""
    from autotune import model_reports
    from autotune.opened import open_model

    opened = open_model(model, header, chosen, ctx)
    click.echo(model_reports.opened(opened), err=True)
    return opened


def _bandwidth(choice: Choice) -> float | None:
    """Of a copy, measured in a process that has ended before the model is loaded."""
    from autotune.runner import Runner, RunnerError

    with Runner(choice) as runner:
        try:
            return runner.copy_bandwidth()
        except RunnerError as e:
            click.echo(f"note: {e}", err=True)
            return None
