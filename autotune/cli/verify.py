"""`autotune verify`: is a whole model right here, or what is stored for this device?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from autotune.cli import options as opt
from autotune.cli.options import options, settings
from autotune.cli.schedules import check_file, check_schedules, refuse_other
from autotune.cli.text import echo, say_line

if TYPE_CHECKING:
    from autotune.loaded_model import LoadedModel
    from autotune.model_check.launches import LaunchCheck
    from autotune.model_check.whole import Asked, Check
    from autotune.settings import Settings
    from kernels.devices import Choice


def _lengths(_: click.Context, option: click.Parameter, given: str | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    try:
        found = tuple(int(part) for part in given.split(","))
    except ValueError:
        raise click.BadParameter(f"{given!r}: expected whole numbers, as in 1,18,513", param=option) from None
    if min(found) < 1:
        raise click.BadParameter(f"{min(found)}: a prompt has at least 1 token", param=option)
    return found


@click.command(cls=opt.Verb, short_help="Check that MODEL is right here, or what is stored.")
@click.argument("model", required=False)
@options(
    click.option("--lengths", callback=_lengths, metavar="N,N", help="Lengths of prompts. [1,2,16,17,18,31,33,70,513]"),
    click.option(
        "--against", type=click.Choice(["llama.cpp"]), help="Compare with llama.cpp on the same weights, too."
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="Seed that the prompts' tokens are drawn with. [0]",
    ),
    opt.ctx,
    opt.exact,
    click.option(
        "--schedules", is_flag=True, help="Check schedules one by one on random inputs: only those of MODEL, if given."
    ),
    click.option(
        "--file",
        metavar="FILE",
        help="Check the schedules in FILE that are for this architecture; store nothing. - is stdin.",
    ),
    opt.format,
    opt.m,
    click.option("--defaults", is_flag=True, help="Check the hand-chosen schedules of the stored workloads too."),
    click.option("--target", metavar="NAME", help="Refuse any other device than NAME, such as METAL:Apple9."),
    click.option("--simulate", is_flag=True, help="Run Metal source on this machine's CPU; needs --target."),
    click.option(
        "--random", "count", type=int, default=0, metavar="N", help="N random schedules of each workload too."
    ),
    opt.workers,
    opt.threads,
    opt.device,
    opt.db,
    opt.json,
)
def verify(
    model: str | None,
    lengths: tuple[int, ...] | None,
    against: str | None,
    seed: int,
    ctx: int | None,
    exact: bool,
    schedules: bool,
    file: str | None,
    formats: tuple[str, ...],
    m: tuple[int, ...],
    defaults: bool,
    target: str | None,
    simulate: bool,
    count: int,
    workers: int | None,
    device: str | None,
    db: str | None,
    as_json: bool,
) -> int:
    """Check that MODEL computes what its weights say, under the schedules that are served on this device.

    Every launch is judged against a float64 reference, on the model's own weights. A prompt that is read at once, or
    in two pieces, must give the logits of the same prompt read token by token, for each of --lengths. A CPU that
    multiplies in int8 is checked with activations in float32 first, and then in int8. That the launches are the right
    ones for this architecture is checked by --against only, in float32. Status 1 if anything is wrong: the last line
    names the first layer and launch that differs. With --simulate, the Metal source of all kernels is what is checked,
    on this machine's CPU.

    Without MODEL, or with --schedules, each schedule that is stored for this device, in your store or in the packaged
    one, is checked on random inputs with two seeds; what is wrong is withdrawn. Those that were accepted for another
    version of a kernel's source are left to `autotune retune`. With --simulate no Mac is needed: stored, hand-chosen
    and the heuristic's schedules run in three orders of threads. With --file it is the schedules of an export or a
    submission that are checked, of any device of this one's architecture.

    \b
    Examples:
      autotune verify model.gguf
      autotune verify model.gguf --against llama.cpp
      autotune verify --format Q4_K
      autotune verify --target METAL:Apple9 --simulate
      autotune verify --file db/rows/cuda-sm-90-nvidia-h200-132.json
    """
    chosen = settings(db=db, device=device, workers=workers, exact=exact)
    if file is not None:
        if model or schedules or formats or m or defaults or count or lengths or against or db:
            raise click.UsageError("--file goes with --target, --simulate, --workers, --device and --json only")
        return check_file(chosen, file, target, simulate, as_json)
    if model and not schedules:
        if formats or m or defaults or count:
            raise click.UsageError("--format, --m, --defaults and --random choose schedules: add --schedules")
        return _whole_model(chosen, model, target, simulate, ctx, lengths, seed, against, as_json)
    if lengths or against:
        raise click.UsageError("--lengths and --against are for a whole MODEL, without --schedules")
    return check_schedules(chosen, model, target, simulate, ctx, formats, m, defaults, count, as_json)


def _whole_model(
    chosen: Settings,
    model: str,
    target: str | None,
    simulate: bool,
    ctx: int | None,
    lengths: tuple[int, ...] | None,
    seed: int,
    against: str | None,
    as_json: bool,
) -> int:
    from autotune.loaded_model import load_model, plan_model
    from autotune.model_check import LENGTHS
    from autotune.model_check.whole import AGAINST_CONTEXT, Asked
    from autotune.session import choose
    from kernels.models.header import read_header

    choice = _simulated_metal(target) if simulate else choose(chosen)
    header = read_header(model)
    plan = plan_model(header, choice, ctx, chosen.exact)
    if lengths and max(lengths) > plan.context:
        given = max(lengths)
        raise click.UsageError(f"--lengths: a prompt of {given} tokens does not fit the context of {plan.context}")
    if against and plan.context < AGAINST_CONTEXT:
        raise click.UsageError(f"--against needs a context of at least {AGAINST_CONTEXT} tokens, not {plan.context}")
    plans = [plan] if plan.exact else [plan_model(header, choice, ctx, exact=True), plan]
    asked = Asked(lengths or LENGTHS, seed, against is not None)
    count, wrong = 0, []
    for plan in plans:
        loaded = load_model(plan, chosen, choice)
        refuse_other(target, loaded.target)
        with loaded.running():
            for check in (_told if as_json else _printed)(loaded, _checks(loaded, asked, as_json)):
                count += 1
                wrong += [] if check.ok else [check]
        del loaded  # there may be no room for two
    return _summary(count, wrong, as_json)


def _summary(count: int, wrong: Sequence[Check], as_json: bool) -> int:
    """Prints how many checks there were and the first that failed. The exit status."""
    from autotune import jsonable
    from autotune.report import check as check_report

    first = wrong[0] if wrong else None
    if as_json:
        say_line("summary", checks=count, wrong=len(wrong), first=first and jsonable.check(first)[1])
    else:
        told = "" if first is None else f"; the first: {check_report.first(first)}"
        echo(f"{count} checks, {len(wrong)} not right{told}")
    return 1 if wrong else 0


def _checks(loaded: LoadedModel, asked: Asked, as_json: bool) -> Iterator[Check]:
    """The checks as they come, behind a bar on a terminal."""
    from autotune.model_check.whole import checks, launch_count
    from autotune.progress import counted

    shown = not as_json and sys.stderr is not None and sys.stderr.isatty()
    with counted("launches", launch_count(loaded.model), shown) as step:
        for check in checks(loaded.model, asked):
            step()
            yield check


def _simulated_metal(target: str | None) -> Choice:
    """METAL simulated in this process, of the arch that --target names."""
    from autotune.metalsim.device import Simulation, install
    from autotune.simulate import BACKEND, parse_target
    from kernels.devices import Choice

    if target is None:
        raise click.UsageError("--simulate needs a --target, such as METAL:Apple9")
    install(Simulation(parse_target(target)))
    return Choice(BACKEND, f"simulated {target}, by --simulate")


def _told(loaded: LoadedModel, found: Iterable[Check]) -> Iterator[Check]:
    """Prints each check as JSON when it comes."""
    from autotune import jsonable

    for check in found:
        event, value = jsonable.check(check)
        say_line(event, exact=loaded.model.exact, **value)
        yield check


def _printed(loaded: LoadedModel, found: Iterable[Check]) -> Iterator[Check]:
    """Prints what is checked, and the checks in a table: those of a pass together, others when they come."""
    from autotune.model_check.launches import LaunchCheck
    from autotune.model_check.paths import PathCheck
    from autotune.render import heading
    from autotune.report import check as check_report
    from autotune.report import model as model_report
    from autotune.report.doctor import chosen_device

    echo(f"{chosen_device(loaded.choice)}\n{model_report.loaded_model(loaded)}\n{heading(check_report.CHECKS)}")
    of_pass: list[LaunchCheck] = []

    def flush() -> None:
        for text in check_report.by_kernel(of_pass):
            echo(text)
        of_pass.clear()

    for check in found:
        if isinstance(check, LaunchCheck):
            if of_pass and of_pass[-1].position != check.position:
                flush()
            of_pass.append(check)
        else:
            flush()
            echo(check_report.path(check) if isinstance(check, PathCheck) else check_report.against(check))
        yield check
    flush()
