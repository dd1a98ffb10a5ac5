"""The pages are true: generated ones are up to date, links lead somewhere, commands, files and names exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support import cli_page, gguf_keys
from support.pages import PAGES, ROOT, anchors, commands, links, paths, python_blocks, python_environment, section
from support.tensor_calls import public_functions

from autotune.cli import main
from kernels.serve.resolution import STEPS

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_list_of_keys_is_up_to_date() -> None:
    written = gguf_keys.DOCUMENT.read_text(encoding="utf-8")
    assert written == gguf_keys.document(), "python tests/support/gguf_keys.py"


def test_the_commands_are_those_of_help() -> None:
    written = cli_page.PAGE.read_text(encoding="utf-8")
    assert cli_page.with_commands(written) == written, "run: python tests/support/cli_page.py"


def test_every_variable_that_is_read_is_documented() -> None:
    folders = ("autotune", "kernels", "db")
    sources = [p.read_text(encoding="utf-8") for folder in folders for p in ROOT.glob(f"{folder}/**/*.py")]
    read = set(re.findall(r"AUTOTUNE_[A-Z_]+", "\n".join(sources)))
    assert read == set(re.findall(r"`(AUTOTUNE_[A-Z_]+)`", section(text("docs/cli.md"), "Environment")))


def test_every_bench_is_listed() -> None:
    files = {str(p.relative_to(ROOT)) for p in ROOT.glob("bench/*.py") if p.name != "__init__.py"}
    table = text("docs/benchmarks.md").partition("\n## ")[0]
    assert files == set(re.findall(r"`(bench/\w+\.py)`", table))


def test_the_lookup_steps_are_in_order() -> None:
    steps = re.findall(r"^\d\. `(\w+)`", section(text("docs/tuning.md"), "Which schedule a kernel gets"), re.MULTILINE)
    assert tuple(steps) == STEPS


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    missing = [path for path in paths(page.read_text(encoding="utf-8")) if not (ROOT / path).exists()]
    assert missing == []


@every_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        name, *arguments = shlex.split(line, comments=True)[1:]
        command = main.commands.get(name)
        assert command is not None, line
        known = {
            option for p in command.params if isinstance(p, click.Option) for option in (*p.opts, *p.secondary_opts)
        }
        assert {word for word in arguments if word.startswith("-") and word != "--"} <= {*known, "--help"}, line


def test_every_function_over_tensors_is_listed() -> None:
    listed = re.findall(r"`kernels\.(\w+\.\w+)`", section(text("docs/python.md"), "The other kernels"))
    there = {name.removeprefix("kernels.api.") for name in public_functions() if name != "kernels.linear"}
    assert set(listed) == there | {"attention.angles"}  # which returns arrays


def test_the_tree_that_is_drawn_is_the_tree() -> None:
    drawn, folders = text("docs/architecture.md").partition("## The tree")[2].split("```")[1], []
    parents: list[str] = []
    for indent, name in re.findall(r"^( *)([\w-]+)/ ", drawn, re.MULTILINE):
        parents = [*parents[: len(indent) // 2], name]
        folders.append("/".join(parents))
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []
    packages = {p.parent for package in ("kernels", "autotune") for p in ROOT.glob(f"{package}/*/__init__.py")}
    assert {str(p.relative_to(ROOT)) for p in packages} <= set(folders)


def test_python_for_weights_runs(tmp_path: Path) -> None:
    (source,) = python_blocks(text("docs/python.md"))
    source += "\nassert y.shape == (3, n) and not y.numpy().any()"
    command = [sys.executable, "-W", "error", "-c", source]
    done = subprocess.run(command, env=python_environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
