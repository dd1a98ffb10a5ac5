"""The command line: its commands together. Each parses, calls one function and renders; none of them computes.

Only this module and its `cli_*` neighbours print or decide the exit status: 0 fine, 1 something failed, 2 bad input,
130 Ctrl-C. Everything heavy is imported by the command that needs it, so that `--help` and a dry run answer at once.
"""

from __future__ import annotations

import click

from autotune import __version__, cli_check, cli_model, cli_speed, cli_store, cli_sweep, cli_verify
from autotune.cli_options import Program


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
    cli_sweep.sweep,
    cli_store.list_,
    cli_store.show,
    cli_check.explain,
    cli_store.export,
    cli_store.import_,
    cli_verify.verify,
    cli_check.doctor,
    cli_model.run,
    cli_speed.bench,
    cli_speed.profile,
):
    main.add_command(_command)

if __name__ == "__main__":
    main(prog_name="autotune")
