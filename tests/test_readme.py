"""The README is true and short: its Python runs, and what it names as supported is what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import README, python_blocks, python_environment, section
from support.small_cases import CASES

from kernels.devices import DeviceError, choose_device
from kernels.formats import FORMATS
from kernels.models.architectures import ARCHITECTURES
from kernels.ops.registry import OPS, Q8_OPS

TEXT = README.read_text(encoding="utf-8")
SUPPORTED = section(TEXT, "What is supported")


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 200


def test_its_two_commands_are_each_one_line() -> None:
    commands = re.findall(r"```sh\n(.*?)```", section(TEXT, "Two commands"), re.DOTALL)
    assert [len(command.splitlines()) for command in commands] == [1, 1]


def test_its_python_runs(tmp_path: Path) -> None:
    CASES["llama"].write(tmp_path / "model.gguf")
    (source,) = python_blocks(TEXT)
    source += "\nassert y.shape == (3, w.shape[0])"
    command = [sys.executable, "-W", "error", "-c", source]
    done = subprocess.run(command, cwd=tmp_path, env=python_environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 8


@pytest.mark.parametrize(
    ("row", "names"), [("formats", FORMATS), ("architectures", ARCHITECTURES), ("ops", {**OPS, **Q8_OPS})]
)
def test_it_names_what_there_is_and_nothing_else(row: str, names: dict[str, object]) -> None:
    (listed,) = re.findall(rf"^\| {row} \| (.*) \|$", SUPPORTED, re.MULTILINE)
    plain = re.sub(r"\(.*?\)|\. .*", "", listed).replace("`", "")
    assert sorted(name.strip() for name in re.split("[,;]", plain)) == sorted(names)


def test_it_names_every_backend_that_dev_may_ask_for() -> None:
    with pytest.raises(DeviceError) as caught:
        choose_device({"DEV": "nothing"})
    (listed,) = re.findall(r"^\| backends \| (.*) \|$", SUPPORTED, re.MULTILINE)
    assert set(re.findall(r"\b[A-Z]{2,}\b", listed)) - {"DEV"} == set(str(caught.value).split(" of ")[-1].split(", "))


def test_it_names_every_page() -> None:
    pages = {str(p.relative_to(README.parent)) for p in README.parent.glob("docs/*.md")}
    assert pages <= set(re.findall(r"\]\(([\w/.-]+)\)", section(TEXT, "Where to go next")))
