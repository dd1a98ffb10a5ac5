"""The prompt of `autotune run`: which argument is one, and its text."""

from __future__ import annotations

import itertools
import re

import click

from autotune.cli.options import Verb
from autotune.cli.text import argument, read_stdin

STDIN = "-"
_OPTION = re.compile(r"--?[A-Za-z][\w-]*(=.*)?", re.DOTALL)  # what an option may look like


class PromptVerb(Verb):
    """A command with a prompt, which may begin with a dash where no option looks like it: "-5 degrees". One that does
    look like an option goes after `--`, as click has it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, self._prompts_last(args))
        except click.NoSuchOption as e:
            raise click.UsageError(
                f"{e.format_message()} (A prompt that looks like an option goes after --.)", ctx
            ) from e

    def _prompts_last(self, args: list[str]) -> list[str]:
        """The arguments, with a `--` before those that begin with a dash and are neither an option nor its value."""
        end = args.index("--") if "--" in args else len(args)
        valued = {name for p in self.params if isinstance(p, click.Option) and not p.is_flag for name in p.opts}
        prompts: list[str] = []
        others: list[str] = []
        for before, arg in itertools.pairwise(["", *args[:end]]):
            is_prompt = arg.startswith("-") and arg != STDIN and before not in valued and not _OPTION.fullmatch(arg)
            (prompts if is_prompt else others).append(arg)
        return [*others, "--", *prompts, *args[end + 1 :]]


def prompt_text(given: str) -> str:
    """What the model reads: the argument, or for "-" all of stdin but a newline at its very end, which is the shell's.

    Raises TextError for what is no text.
    """
    if given == STDIN:
        return re.sub(r"\r?\n\Z", "", read_stdin("the prompt"))
    return argument(given, "the prompt")
