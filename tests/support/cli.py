"""The command line inside this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from autotune.cli import main


def run(*arguments: str, input: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=input)


def ok(*arguments: str, input: str | None = None) -> str:
    done = run(*arguments, input=input)
    assert done.exit_code == 0, done.output
    return done.stdout
