"""The command line: its commands together. Each parses, calls one function and renders; none of them computes.

Only the modules of this package print or decide the exit status: 0 fine, 1 something failed, 2 bad input,
130 Ctrl-C. Everything heavy is imported by the command that needs it, so that `--help` and a dry run answer at once.
"""

from __future__ import annotations

import click

from autotune import __version__
from autotune.cli import check, compare, forget, model, pack, retune, speed, store, submit, sweep, transfer, verify
from autotune.cli.options import Program


@click.group(cls=Program, context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="autotune")
def main() -> None:
    """Find the fastest schedules for the kernels of a GGUF model on this machine, and keep them.

    What is found is validated against a float64 reference, stored, and served to `kernels` in Python.

    \b
    Examples:
      autotune sweep model.gguf
      autotune list
      autotune explain model.gguf
      autotune run model.gguf "Once upon a time"
    """


for _command in (
    sweep.sweep,
    retune.retune,
    store.list_,
    store.show,
    check.explain,
    compare.compare,
    transfer.export,
    transfer.import_,
    pack.pack,
    submit.submit,
    forget.forget,
    verify.verify,
    check.doctor,
    model.run,
    speed.bench,
    speed.profile,
):
    main.add_command(_command)
