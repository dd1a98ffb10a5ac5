"""`autotune pack`: the store that travels in the package, out of results that owners of devices gave."""

from __future__ import annotations

import click

from autotune.cli import options as opt
from autotune.cli.options import options
from autotune.cli.text import echo, say


@click.command(cls=opt.Verb, short_help="Build the packaged store from files of results.")
@click.argument("results", nargs=-1, required=True)
@options(
    click.option("-o", "--output", metavar="FILE", help="The store to write."),
    click.option("--check", metavar="FILE", help="Write nothing; tell whether FILE holds what would be packed."),
    opt.json,
)
def pack(results: tuple[str, ...], output: str | None, check: str | None, as_json: bool) -> int:
    """Build the packaged store from RESULTS: files of `autotune export`, or stores.

    Of each workload, device and kernel source the newest accepted schedule is packed, with its run; and the rules for
    shapes that have no row. The same results give the same file. With --check, status 1 if FILE holds anything else.

    \b
    Example:
      autotune pack db/rows/*.json -o db/packaged.sqlite
    """
    from autotune import pack as packing

    if (output is None) == (check is None):
        raise click.UsageError("give one of -o FILE and --check FILE")
    packed = packing.pack(results)
    same = None
    if output is not None:
        packing.write(packed, output)
    elif check is not None:
        same = not packing.differs(packed, check)
    told = {"rows": len(packed.rows), "rules": len(packed.rules), "left_out": dict(packed.left_out)}
    if as_json:
        say({**told, "file": output or check, **({} if same is None else {"same": same})})
        return int(same is False)
    echo(f"{len(packed.rows)} schedules and {len(packed.rules)} rules" + (f" written to {output}" if output else ""))
    for reason, count in packed.left_out.items():
        echo(f"{count} are left out: {reason}")
    if same is not None:
        echo(f"{check} holds them" if same else f"{check} differs: autotune pack … -o {check}")
    return int(same is False)
