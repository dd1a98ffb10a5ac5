"""`autotune run`: text out of a whole model over the tuned kernels; and what opens it for `speed`, too."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import click

from autotune.cli import options as opt
from autotune.cli.options import options, settings_to_read
from autotune.cli.prompt import PromptVerb, prompt_text
from autotune.cli.text import echo, say, tell

if TYPE_CHECKING:
    from autotune.loaded_model import LoadedModel
    from autotune.settings import Settings
    from autotune.tokenizer import Tokenizer
    from kernels.devices import Choice
    from kernels.llm import PlannedModel
    from kernels.models.header import Header


def _warmth(_: click.Context, option: click.Parameter, given: float) -> float:
    """click's own ranges have NaN in them."""
    if not 0 <= given < math.inf:
        raise click.BadParameter(f"{given}: expected 0 or more", param=option)
    return given


ctx = click.option("--ctx", type=int, metavar="N", help="Tokens that fit the cache, the model's limit at most. [4096]")


@click.command(cls=PromptVerb, short_help="Generate text with MODEL.")
@click.argument("model")
@click.argument("prompt", required=False)
@options(
    click.option("--max-tokens", type=click.IntRange(1), default=128, metavar="N", help="Stop after N tokens. [128]"),
    click.option(
        "--temperature",
        type=float,
        callback=_warmth,
        default=0.0,
        metavar="T",
        help="0: always the likeliest token. [0]",
    ),
    ctx,
    opt.exact,
    click.option("--ids", metavar="IDS", help="The prompt as token ids, as in 1,2,3; needs no tokenizer."),
    opt.threads,
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
    exact: bool,
    ids: str | None,
    device: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """Generate text with MODEL, a GGUF file, from PROMPT on; - reads it from stdin. Text goes to stdout as it comes.

    The prompt is taken as it is, without a chat template; special tokens may be written out in it. A newline at the
    very end of stdin is dropped. A prompt that looks like an option goes after --. The line on stderr tells how many of
    the kernels are tuned, and what the model takes on the device.

    \b
    Example:
      autotune run model.gguf "Once upon a time"
      autotune run model.gguf -- "--help"
    """
    if (prompt is None) == (ids is None):
        raise click.UsageError("give a PROMPT (- reads it from stdin) or --ids, and not both")
    from autotune.loaded_model import plan_model
    from autotune.session import choose
    from autotune.tokenizer import ARRAYS
    from autotune.turns import advice
    from kernels.models.header import read_header

    chosen = settings_to_read(db=db, device=device)
    choice, header = choose(chosen), read_header(model, keep=ARRAYS)
    plan = plan_model(header, choice, ctx, exact)
    tokenizer = _tokenizer(header, needed=ids is None)
    if ids is not None:
        tokens = _ids(ids, plan.vocabulary)
    elif tokenizer is not None and prompt is not None:
        said = prompt_text(prompt)
        tokens = tokenizer.encode(said)
        if not tokens:
            raise click.UsageError("the PROMPT is empty, and this model has no token to begin a text with")
        for line in tokenizer.warnings(tokens):
            tell(f"autotune: warning: {line}")
        if not as_json and (how := advice(header, said)) is not None:
            tell(f"note: {how}")
    ready = loaded(plan, chosen, choice)

    from autotune.report import model as model_report
    from autotune.text_stream import TextStream

    stream, text = TextStream(ready.model, tokenizer, tokens, max_tokens, temperature), ""
    try:
        with ready.running():
            for piece in stream:
                text += piece
                if not as_json:
                    echo(piece, nl=False)
    finally:
        if text and not as_json:
            echo()  # after Ctrl-C, too: what comes next is a line of its own
    if as_json:
        say({**model_report.loaded_model_json(ready), **model_report.text_stream_json(stream, text)})
    else:
        tell(model_report.text_stream(stream))
    return 0


def _tokenizer(header: Header, needed: bool) -> Tokenizer | None:
    from autotune.tokenizer import TokenizerError, tokenizer

    try:
        return tokenizer(header)
    except TokenizerError:
        if needed:
            raise
        return None  # ids come out as they went in


def _ids(given: str, count: int) -> list[int]:
    try:
        found = [int(part) for part in given.split(",")]
    except ValueError:
        raise click.UsageError(f"--ids {given!r}: expected whole numbers, as in 1,2,3") from None
    if bad := [i for i in found if not 0 <= i < count]:
        raise click.UsageError(f"--ids: {bad[0]} is no token of this model, which has 0 to {count - 1}")
    return found


def loaded(plan: PlannedModel, chosen: Settings, choice: Choice) -> LoadedModel:
    """A planned model on the device of `choice`; one line on stderr tells of it."""
    from autotune.loaded_model import load_model
    from autotune.progress import loading
    from autotune.report import model as model_report

    shown = sys.stderr is not None and sys.stderr.isatty()
    with loading(plan.sizes.weights_nbytes, shown) as on_loaded:
        ready = load_model(plan, chosen, choice, on_loaded)
    tell(model_report.loaded_model(ready))
    return ready
