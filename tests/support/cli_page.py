"""The section of docs/cli.md on commands, generated from --help. Run this file to rewrite it."""

from __future__ import annotations

import re
from pathlib import Path

import click

from autotune.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
SECTION = re.compile(r"(<!-- commands: begin .*? -->\n).*?(<!-- commands: end -->)", re.DOTALL)
WIDTH = 100


def commands() -> str:
    """Each command's help, 100 columns wide, as Markdown."""
    group = main.make_context("autotune", [], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH)
    parts = [("autotune", main.get_help(group))]
    for name, command in main.commands.items():
        with click.Context(command, parent=group, info_name=name) as context:
            parts.append((f"autotune {name}", command.get_help(context)))
    return "\n".join(f"### `{name}`\n\n```\n{text}\n```\n" for name, text in parts)


def with_commands(text: str) -> str:
    """The page's text with its section on commands brought up to date."""
    new, count = SECTION.subn(lambda found: f"{found[1]}\n{commands()}\n{found[2]}", text)
    if count != 1:
        raise ValueError(f"{PAGE}: expected one section between the marks 'commands: begin' and 'end', saw {count}")
    return new


if __name__ == "__main__":
    PAGE.write_text(with_commands(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
