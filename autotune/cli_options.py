"""What the commands share: options, settings out of them, and how an error or Ctrl-C ends the program."""

from __future__ import annotations

import functools
import json as jsonlib
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from autotune.settings import Settings

if TYPE_CHECKING:
    from autotune.workloads import ModelPlan
    from db.records import Target

F = TypeVar("F", bound=Callable[..., Any])
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def _input_errors() -> tuple[type[Exception], ...]:
    """What bad input or a missing device raises; imported when something was raised, since it takes a while."""
    from autotune.compiler import CompilePoolError
    from autotune.opened import ModelMemoryError
    from autotune.runner import RunnerError
    from autotune.tokenizer import TokenizerError
    from db.codec import CodecError
    from db.exchange import ExchangeError
    from db.store import StoreError
    from kernels.devices import DeviceError
    from kernels.hostcc import MendError
    from kernels.llm import ModelError
    from kernels.models.header import HeaderError

    model = (HeaderError, ModelError, ModelMemoryError, TokenizerError)
    return *model, StoreError, ExchangeError, CodecError, DeviceError, MendError, RunnerError, CompilePoolError


class Program(click.Group):
    """Commands return their exit status. Bad input ends in one line on stderr and status 2, Ctrl-C in status 130."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        run = functools.partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            status: Any = run()
        except click.ClickException as e:
            e.show()
            status = 2
        except click.Abort:  # what click makes of KeyboardInterrupt
            click.echo("stopped", err=True)
            status = INTERRUPTED
        except BrokenPipeError:  # as in `| head`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python still flushes when it ends
            status = 1
        except _input_errors() as e:
            click.echo(f"autotune: {' '.join(str(e).split())}", err=True)
            status = 2
        sys.exit(status)


def _buckets(_: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[int, ...]:
    """`--m 1 --m 8` and `--m 1,8` alike."""
    try:
        return tuple(dict.fromkeys(int(part) for text in given for part in text.split(",")))
    except ValueError:
        raise click.BadParameter(f"{', '.join(given)!r}: expected whole numbers, as in 1,8", param=option) from None


def positive(_: click.Context, option: click.Parameter, given: float | None) -> float | None:
    """An amount of something; click's own ranges have NaN in them."""
    if given is not None and not 0 < given < math.inf:
        raise click.BadParameter(f"{given}: expected more than 0", param=option)
    return given


db = click.option("--db", metavar="PLACE", help="Store: a path or SQLAlchemy URL. [env: AUTOTUNE_DB]")
device = click.option("--device", metavar="DEV", help="tinygrad device, such as METAL, CUDA or CPU. [env: DEV]")
json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
format = click.option("--format", "formats", metavar="TYPE", multiple=True, help="Only this GGML type; repeatable.")
target = click.option("--target", metavar="TEXT", help="Only targets whose name contains TEXT, such as M3.")
workers = click.option(
    "--workers", type=int, metavar="N", help="Compilers at work. [env: AUTOTUNE_WORKERS; one a CPU thread]"
)
m = click.option(
    "--m", metavar="TOKENS", multiple=True, callback=_buckets, help="Token buckets of 1, 2, 4, 8, 32, 512, as in 1,8."
)


ctx = click.option(
    "--ctx",
    type=int,
    metavar="N",
    help="Positions that attention is tuned at. [4096, or the model's]",
)

linears = click.option(
    "--linears/--no-linears",
    default=True,
    help="Each weight as the plain linear of kernels.linear too, not only as a decode step has it. [on]",
)


def options(*given: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, listed in help in the order given."""

    def decorate(f: F) -> F:
        for option in reversed(given):
            f = option(f)
        return f

    return decorate


def settings(**given: Any) -> Settings:
    """The environment's settings with what the command line gives. Raises UsageError naming the bad value."""
    changes: Mapping[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        return replace(Settings.from_environment(), **changes)
    except ValueError as e:
        raise click.UsageError(str(e)) from e


def plan_of(model: str, device: str, m: tuple[int, ...], ctx: int | None = None, linears: bool = True) -> ModelPlan:
    """The workloads of a GGUF file on a device, "" for any GPU. Raises HeaderError, and UsageError for an m that is no
    token bucket."""
    from autotune.workloads import workloads
    from kernels.models.header import HeaderError, read_header
    from kernels.models.passes import CONTEXT

    header = read_header(model)
    try:
        return workloads(header, m or (1,), "float32", CONTEXT if ctx is None else ctx, linears, device)
    except HeaderError:
        raise
    except ValueError as e:
        raise click.UsageError(str(e)) from e


def this_target(chosen: Settings) -> Target:
    """This machine's target. Opens the device in this process."""
    from autotune.session import choose
    from kernels import devices

    choice = choose(chosen)
    devices.activate(choice)
    return devices.describe_target(choice.device)


def say(value: Any) -> None:
    """Prints one JSON value."""
    click.echo(jsonlib.dumps(value, indent=2, ensure_ascii=False))


def say_line(event: str, **value: Any) -> None:
    """Prints one JSON object on one line, at once: more lines may take minutes."""
    click.echo(jsonlib.dumps({"event": event, **value}, ensure_ascii=False))
