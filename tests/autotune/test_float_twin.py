"""The float twin of a model has its keys and values, and is removed whatever ends the process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from support import gguf_files
from support.full_disk import room_for
from support.small_cases import CASES

from autotune.model_check.float_twin import temporary_twin, write_float_twin
from db.errors import FileError
from kernels.models.header import read_header


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "llama.gguf"
    CASES["llama"].write(path)
    return path


def test_a_float_twin_has_the_same_keys_and_values(model: Path, tmp_path: Path) -> None:
    write_float_twin([model], tmp_path / "twin.gguf")
    ours, twin = gguf.GGUFReader(model), gguf.GGUFReader(tmp_path / "twin.gguf")

    def keys(reader: gguf.GGUFReader) -> dict[str, object]:
        return {name: f.contents() for name, f in reader.fields.items() if not name.startswith("GGUF.")}

    assert keys(twin) == keys(ours)
    assert [t.name for t in twin.tensors] == [t.name for t in ours.tensors]
    for a, b in zip(ours.tensors, twin.tensors, strict=True):
        assert b.tensor_type is gguf.GGMLQuantizationType.F32
        assert list(a.shape) == list(b.shape)
        assert np.array_equal(gguf.dequantize(a.data, a.tensor_type).reshape(-1), np.asarray(b.data).reshape(-1))


def test_a_split_model_has_one_float_twin(tmp_path: Path) -> None:
    facts = [("a.weight", (4, 32), "Q8_0"), ("b.weight", (32,), "F32")]
    paths = []
    for number, tensor in enumerate(facts):
        keys = {"split.no": number, "split.count": 2, "split.tensors.count": 2}
        head = {"general.architecture": "llama", "llama.block_count": 1} if number == 0 else {}
        paths.append(tmp_path / f"m-0000{number + 1}-of-00002.gguf")
        gguf_files.write_sparse_gguf(paths[-1], head | keys, [tensor])
    write_float_twin(paths, tmp_path / "twin.gguf")
    header = read_header(tmp_path / "twin.gguf")
    assert {t.name: (t.shape, t.format) for t in header.tensors} == {
        "a.weight": ((4, 32), "F32"),
        "b.weight": ((32,), "F32"),
    }
    assert header.metadata["llama.block_count"] == 1


def test_a_float_twin_without_room_is_an_error(model: Path) -> None:
    with room_for(1000), pytest.raises(FileError, match=r"twin\.gguf: File too large"), temporary_twin([model]):
        pass


def test_a_float_twin_that_is_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    rows = shutil.disk_usage(tmp_path).free // (32 * 256)
    gguf_files.write_sparse_gguf(path, {"general.architecture": "llama"}, [("a.weight", (rows, 32 * 256), "TQ1_0")])
    with pytest.raises(FileError, match="GB are free: set TMPDIR"), temporary_twin([path]):
        pass


HOLDS_A_TWIN = """
import signal, sys, time
from pathlib import Path
import click
from autotune.cli.options import Program
from autotune.model_check.float_twin import temporary_twin

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # after nohup it would be ignored

@click.group(cls=Program)
def main(): pass

@main.command()
@click.argument("model")
def hold(model):
    with temporary_twin([Path(model)]):
        print("held", flush=True)
        time.sleep(60)

main()
"""


@contextlib.contextmanager
def holding_a_twin(model: Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has written a model's twin, and waits."""
    command = [sys.executable, "-c", HOLDS_A_TWIN, "hold", str(model)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            assert len(list(temporary.glob("*/twin.gguf"))) == 1
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_leaves_no_float_twin(number: signal.Signals, model: Path, tmp_path: Path) -> None:
    with holding_a_twin(model, tmp_path) as process:
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert not list(tmp_path.iterdir())


def test_a_float_twin_of_a_killed_process_is_removed_and_one_in_use_is_not(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with holding_a_twin(model, tmp_path) as killed:
        (used,) = tmp_path.iterdir()
        with temporary_twin([model]) as twin:
            assert {path.name for path in tmp_path.iterdir()} == {used.name, twin.parent.name}
        killed.kill()
        killed.wait()
        assert used.exists()
        with temporary_twin([model]) as twin:
            assert list(tmp_path.iterdir()) == [twin.parent]
    assert not list(tmp_path.iterdir())


def test_a_float_twin_is_not_removed_in_the_moment_that_it_is_made(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make = tempfile.mkdtemp

    def interrupted(*args: Any, **kwargs: Any) -> str:
        made = make(*args, **kwargs)
        with monkeypatch.context() as m:
            m.setattr(tempfile, "mkdtemp", make)
            with temporary_twin([model]):  # of another verify, which begins just now
                pass
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    with temporary_twin([model]) as twin:
        assert twin.stat().st_size > 1000
    assert not list(tmp_path.iterdir())


def test_what_is_no_folder_of_a_float_twin_is_left_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    os.mkfifo(tmp_path / "autotune-twin-fifo")
    (tmp_path / "mine").mkdir()
    (tmp_path / "autotune-twin-link").symlink_to(tmp_path / "mine")
    with temporary_twin([model]):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"autotune-twin-fifo", "autotune-twin-link", "mine"}
