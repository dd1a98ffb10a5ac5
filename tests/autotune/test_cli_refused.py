"""What a file asks for and is not done ends every command that takes a model: one line, status 2, nothing computed."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support import gguf_files
from support import synthetic_models as made
from support.cli import run
from support.cpu_session import use_cpu

from kernels import llm
from kernels.models.header import Header, HeaderError

COMMANDS = [
    ("sweep", "--dry-run"),
    ("sweep",),
    ("explain",),
    ("run", "--ids", "1,2,3"),
    ("bench", "--tokens", "1"),
    ("profile",),
]
WRONG: list[tuple[Mapping[str, Any], Mapping[str, made.Shape], str]] = [
    ({"attention.causal": False}, {}, "llama.attention.causal is False, expected True"),
    ({"rope.freq_base": (1e4, 5e5)}, {}, "llama.rope.freq_base is an array of 2 values, expected one value"),
    ({"attention.clamp_kqv": 8.0}, {}, "llama.attention.clamp_kqv is 8.0, expected 0"),
    ({}, {"blk.1.attn_q.scale": (1,)}, "the tensor 'blk.1.attn_q.scale' of shape (1,): a factor of a whole weight"),
    ({}, {"blk.0.attn_sub_norm.weight": (made.DIM,)}, "the tensor 'blk.0.attn_sub_norm.weight' of shape (256,) is no"),
]


def write(path: Path, header: Header) -> str:
    keys = {"general.architecture": header.architecture, **header.metadata}
    floats = {key: value for key, value in keys.items() if isinstance(value, tuple)}  # plain entries are of integers
    entries = [
        gguf_files.entry(
            key,
            gguf_files.ARRAY,
            gguf_files.array(gguf_files.FLOAT32, len(value), struct.pack(f"<{len(value)}f", *value)),
        )
        for key, value in floats.items()
    ]
    tensors = [(t.name, t.shape, t.format) for t in header.tensors]
    plain = {key: value for key, value in keys.items() if key not in floats}
    gguf_files.write_sparse_gguf(path, plain, tensors, extra=entries)
    return str(path)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(("keys", "tensors", "said"), WRONG, ids=[said for *_, said in WRONG])
def test_every_command_refuses(
    command: tuple[str, ...],
    keys: Mapping[str, Any],
    tensors: Mapping[str, made.Shape],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTOTUNE_DB", str(tmp_path / "store.sqlite"))
    use_cpu(monkeypatch)
    path = write(tmp_path / "a.gguf", made.model("llama", keys=keys, more=tensors))
    done = run(command[0], path, *command[1:])
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    with pytest.raises(HeaderError) as refused:
        llm.load(path, 64)
    assert said in str(refused.value)
