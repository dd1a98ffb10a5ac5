"""What the commands share: options, settings out of them, and how an error or Ctrl-C ends the program."""

from __future__ import annotations

import functools
import io
import math
import os
import signal
import sqlite3
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from autotune.cli.text import ReaderGoneError, tell, telling, writing
from autotune.settings import Settings
from db.errors import AutotuneError, SettingError, without_secrets

if TYPE_CHECKING:
    from autotune.workloads import ModelPlan
    from db.records import Target, Workload
    from db.store import Store
    from kernels.models.header import Header

F = TypeVar("F", bound=Callable[..., Any])
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Verb(click.Command):
    """A command: it prints its help before it is called, and that may fail as all writing may."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with writing():
            return super().parse_args(ctx, args)


class Program(click.Group):
    """Commands return their exit status. Bad input ends in one line on stderr and status 2, Ctrl-C in status 130.

    SIGTERM and SIGHUP end it with status 143 and 129, after temporary files and child processes are gone.
    """

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
        warnings.formatwarning = lambda message, *_, **__: f"autotune: warning: {' '.join(str(message).split())}\n"
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup's is not
                signal.signal(number, _end)
        _lost.clear()
        sys.unraisablehook = _raise_again
        sqlite3.enable_callback_tracebacks(True)  # else what a callback of a query raises is lost without a word
        try:
            status: Any = run()
        except click.ClickException as e:
            vars(e)["message"] = without_secrets(e.message)  # an argument may be a URL
            with telling():
                e.show(sys.stderr or io.StringIO())  # click would show it on stdout where stderr is closed
            status = 2
        except (click.Abort, KeyboardInterrupt):  # click makes the first of the second, once it has begun
            tell("stopped")
            status = INTERRUPTED
        except ReaderGoneError:
            status = 1
        except AutotuneError as e:
            status = 2
            if not _lost:  # else it is what became of the signal
                tell(f"autotune: {' '.join(str(e).split())}")
        sys.exit(128 + _lost[0] if _lost else status)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as e:  # not stdout's; click would end with status 1 and say nothing
            raise RuntimeError("a pipe to a child process broke") from e

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with writing():  # of the help
            return super().parse_args(ctx, args)


_lost: list[int] = []  # signals whose exceptions were lost


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def _raise_again(lost: sys.UnraisableHookArgs) -> None:
    """Sends a signal again whose exception was lost, because it came while Python ran a destructor or a callback. A
    command that ends before that has the signal's status."""
    number: int = signal.SIGINT
    if isinstance(lost.exc_value, SystemExit) and isinstance(lost.exc_value.code, int):
        number = lost.exc_value.code - 128
    elif not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    _lost.append(number)
    again = threading.Timer(0.01, os.kill, (os.getpid(), number))  # not in here, where it would be lost again
    again.daemon = True
    again.start()


def _buckets(_: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[int, ...]:
    """`--m 1 --m 8` and `--m 1,8` alike."""
    try:
        return tuple(dict.fromkeys(int(part) for text in given for part in text.split(",")))
    except ValueError:
        raise click.BadParameter(f"{', '.join(given)!r}: expected whole numbers, as in 1,8", param=option) from None


def ggml_types(_: click.Context, option: click.Parameter, given: str | Sequence[str] | None) -> Any:
    """One GGML type or several, as `kernels.formats` spells them; in what case they are given does not matter."""
    from kernels.formats import FormatError, get_format

    try:
        if given is None or isinstance(given, str):
            return given and get_format(given.upper()).name
        return tuple(get_format(name.upper()).name for name in given)
    except FormatError as e:
        raise click.BadParameter(str(e), param=option) from None


def positive(_: click.Context, option: click.Parameter, given: float | None) -> float | None:
    """An amount of something; click's own ranges have NaN in them."""
    if given is not None and not 0 < given < math.inf:
        raise click.BadParameter(f"{given}: expected more than 0", param=option)
    return given


db = click.option("--db", metavar="PLACE", help="Store: a path or SQLAlchemy URL. [env: AUTOTUNE_DB]")
device = click.option("--device", metavar="DEV", help="tinygrad device, such as METAL, CUDA or CPU. [env: DEV]")
json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
format = click.option(
    "--format",
    "formats",
    metavar="TYPE",
    multiple=True,
    callback=ggml_types,
    help="Only this GGML type; repeatable.",
)
target = click.option("--target", metavar="TEXT", help="Only targets whose name contains TEXT, such as M3.")
workers = click.option(
    "--workers", type=int, metavar="N", help="Compiler processes. [env: AUTOTUNE_WORKERS; one a CPU thread]"
)


def _use_threads(_: click.Context, option: click.Parameter, given: int | None) -> int | None:
    """For this process and those that it starts."""
    from kernels.host import threads

    if given is None:
        return None
    if not 1 <= given <= threads.MOST:
        raise click.BadParameter(f"{given}: expected 1 to {threads.MOST}", param=option)
    os.environ[threads.VARIABLE] = str(given)
    return given


threads = click.option(
    "--threads",
    type=int,
    metavar="N",
    callback=_use_threads,
    expose_value=False,
    help="Threads that compute on a CPU. [env: AUTOTUNE_THREADS; one a core that it may use]",
)
m = click.option(
    "--m", metavar="TOKENS", multiple=True, callback=_buckets, help="Token buckets of 1, 2, 4, 8, 32, 512, as in 1,8."
)


ctx = click.option(
    "--ctx",
    type=int,
    metavar="N",
    help="Positions that attention is tuned at, the model's limit at most. [4096]",
)

exact = click.option(
    "--exact",
    is_flag=True,
    help="Keep activations in float32 on a CPU, which multiplies them in int8 by default if it can.",
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
    """The environment's settings with what the command line gives. Raises SettingError naming the bad value."""
    changes: Mapping[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(Settings.from_environment(), **changes)


def store_to_read(**given: Any) -> tuple[Settings, Store]:
    """`settings` of a command that only reads its store, and the store; one that is not there has no rows.

    Raises SettingError for a --db that is not there, which the command would find empty, and StoreError for a store
    that cannot be read.
    """
    from db.paths import is_missing
    from db.store import Store

    if (named := given.get("db")) is not None and is_missing(named):
        raise SettingError(f"--db {named}: there is no such store; `autotune sweep` and `autotune import` make one")
    chosen = settings(**given)
    return chosen, Store.read(chosen.db, missing_ok=True)


def settings_to_read(**given: Any) -> Settings:
    """The settings of `store_to_read`, where the store is looked at to fail before anything else is done."""
    return store_to_read(**given)[0]


def status_of(store: Store) -> int:
    """The status of a command that did what it could without the rows of a store that cannot be read; tells of them."""
    if store.problems:
        more = f" (and {len(store.problems) - 1} more)" if store.problems[1:] else ""
        tell(f"autotune: {store.problems[0]}{more}")
    return 1 if store.problems else 0


def plan_of(
    model: str, device: str, m: tuple[int, ...], ctx: int | None = None, linears: bool = True, exact: bool = False
) -> ModelPlan:
    """The workloads of a GGUF file on a device, "" for any GPU.

    Raises HeaderError, and SettingError for an m that is no token bucket or a context that cannot be.
    """
    from kernels.models.header import read_header

    return plan_header(read_header(model), device, m, ctx, linears, exact)


def plan_header(
    header: Header, device: str, m: tuple[int, ...], ctx: int | None = None, linears: bool = True, exact: bool = False
) -> ModelPlan:
    """`plan_of` a file whose header was read."""
    from autotune.workloads import workloads
    from kernels.models.passes import CONTEXT

    return workloads(header, m or (1,), "float32", CONTEXT if ctx is None else ctx, linears, device, exact)


def workloads_of(model: str, device: str, ctx: int | None = None) -> frozenset[Workload]:
    """All workloads that a sweep of a GGUF file may have tuned for a device, of every token bucket, exact or not."""
    from db.records import M_BUCKETS
    from kernels.host.int8 import int8_dot
    from kernels.models.header import read_header

    header, modes = read_header(model), (True, False) if int8_dot(device) else (True,)
    plans = [plan_header(header, device, M_BUCKETS, ctx, exact=exact) for exact in modes]
    return frozenset(found.workload for plan in plans for found in plan.workloads)


def versions_here(chosen: Settings) -> dict[str, str]:
    """What this machine's times depend on, of the device that `this_target` has opened."""
    from importlib.metadata import version

    from autotune.session import choose
    from kernels import devices

    device = choose(chosen).device
    return {
        "tinygrad": version("tinygrad"),
        "driver": devices.facts(device).driver,
        "clock": devices.clock(device),
    }


def this_target(chosen: Settings) -> Target:
    """This machine's target. Opens the device in this process."""
    from autotune.session import choose
    from kernels import devices

    choice = choose(chosen)
    devices.activate(choice)
    return devices.describe_target(choice.device)
