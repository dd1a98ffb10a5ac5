"""`autotune verify` of schedules: what is stored for this device, or what runs as simulated Metal source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from autotune.cli.options import plan_of
from autotune.cli.text import UTF8, echo, read_stdin, say_line

if TYPE_CHECKING:
    from autotune.settings import Settings
    from autotune.verify import Checked
    from db.records import Run, Target, Workload
    from db.store import Winner
    from kernels.devices import Choice


def check_schedules(
    chosen: Settings,
    model: str | None,
    target: str | None,
    simulate: bool,
    ctx: int | None,
    formats: tuple[str, ...],
    m: tuple[int, ...],
    defaults: bool,
    count: int,
    as_json: bool,
) -> int:
    """Checks schedules one by one, each on random inputs. The exit status."""
    from autotune.session import choose, session
    from autotune.verify import verify as verified
    from db.paths import PACKAGED
    from db.store import Store
    from kernels import backends

    workloads = None
    if model:
        where = backends.SIMULATED if simulate else choose(chosen).device
        plan = plan_of(model, where, m, ctx, linears=False, exact=chosen.exact)
        workloads = [found.workload for found in plan.workloads]
    if simulate:
        return _simulated(chosen, target, workloads, formats, m, count, as_json)
    if count:
        raise click.UsageError("--random is for --simulate")
    with session(chosen) as s:
        refuse_other(target, s.info.target)
        shipped = Store.read(PACKAGED, missing_ok=True).finals(s.info.target)
        found = verified(s, "autotune verify", formats, m, defaults, workloads or (), shipped)
        return _checked(found, (s.choice, s.info.target), as_json)


def refuse_other(wanted: str | None, here: Target) -> None:
    """Raises UsageError where --target does not name this device."""
    if wanted and wanted.lower() not in (name := f"{here.backend}:{here.arch}").lower():
        raise click.UsageError(f"--target {wanted}: this device is {name}; METAL can be run with --simulate")


def _simulated(
    chosen: Settings,
    target: str | None,
    workloads: Sequence[Workload] | None,
    formats: tuple[str, ...],
    m: tuple[int, ...],
    count: int,
    as_json: bool,
) -> int:
    from autotune import simulate
    from autotune.catalogue import catalogue
    from db.store import Store

    arch = _arch(target)
    store = Store.open(chosen.db)
    asked = [w for w in (catalogue() if workloads is None else workloads) if not m or w.m in m]
    todo = simulate.jobs(store.finals(), arch, asked, formats, count)
    found = simulate.simulate(store, _run_of_simulation(), arch, todo, chosen.workers)
    return _checked(found, (None, simulate.simulated_target(arch)), as_json, len(todo))


def check_file(chosen: Settings, path: str, target: str | None, simulate: bool, as_json: bool) -> int:
    """Checks those schedules of a file that are for this device's architecture, or the simulated one. Nothing of it
    is stored. The exit status."""
    import tempfile
    from dataclasses import replace

    from autotune import transfer
    from autotune.claims import sorted_out
    from autotune.session import session
    from autotune.verify import verify_claims
    from db.payload import parse

    winners = transfer.winners(parse(transfer.read(path, lambda most: read_stdin("the file", UTF8, most))))
    with tempfile.TemporaryDirectory() as folder:
        chosen = replace(chosen, db=f"{folder}/store.sqlite")
        if simulate:
            return _simulated_file(chosen, winners, target, as_json)
        with session(chosen) as s:
            refuse_other(target, s.info.target)
            fit, left_out = sorted_out(winners, s.info.target, of_arch=True)
            status = _checked(verify_claims(s, "autotune verify", fit), (s.choice, s.info.target), as_json, len(fit))
    if not as_json:
        for reason, count in left_out.items():
            echo(f"{count} not checked: {reason}")
    return status


def _simulated_file(chosen: Settings, winners: Sequence[Winner], target: str | None, as_json: bool) -> int:
    from autotune import simulate
    from db.store import Store

    arch = _arch(target)
    todo = simulate.jobs(winners, arch, ())
    found = simulate.simulate(Store.open(chosen.db), _run_of_simulation(), arch, todo, chosen.workers)
    return _checked(found, (None, simulate.simulated_target(arch)), as_json, len(todo))


def _arch(target: str | None) -> str:
    from autotune.simulate import parse_target

    if target is None:
        raise click.UsageError("--simulate needs a --target, such as METAL:Apple9")
    return parse_target(target)


def _run_of_simulation() -> Run:
    import uuid

    from db.records import Run

    return Run(str(uuid.uuid4()), "autotune verify --simulate", 0, 0.0, (("clock", "none: simulated"),))


def _checked(
    found: Iterable[Checked], heading: tuple[Choice | None, Target], as_json: bool, total: int | None = None
) -> int:
    """Prints what is checked as it comes. Status 1 if anything is wrong."""
    from autotune import jsonable
    from autotune.render import heading as columns
    from autotune.report.doctor import chosen_device
    from autotune.report.verify import VERIFY, checked_row

    choice, target = heading
    bad = count = 0
    if not as_json:
        if choice is not None:
            echo(chosen_device(choice))
        echo(f"target {target}\n{columns(VERIFY)}")
    for checked in found:
        count, bad = count + 1, bad + (not checked.ok)
        if as_json:
            say_line("checked", **jsonable.checked(checked))
        else:
            echo(checked_row(checked))
    if not as_json:
        of = f" of {total}" if total else ""
        echo(
            f"{count}{of} schedules checked, {bad} not right"
            if count
            else "nothing is stored for this target"
            if total is None
            else "there is nothing for this target"
        )
    return 1 if bad else 0
