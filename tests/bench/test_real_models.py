"""A model of tests/data/models is written whole, or cut to some of its blocks; a file that exists is taken as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.real_models import real_model
from kernels.models.header import read_header
from kernels.models.passes import plan_passes


@pytest.mark.parametrize("layers", [1, 3])
def test_a_model_is_cut_to_some_of_its_blocks(layers: int, tmp_path: Path) -> None:
    header = read_header(real_model("smollm2-135m", tmp_path, layers))
    blocks = {t.name.split(".")[1] for t in header.tensors if t.name.startswith("blk.")}
    assert blocks == {str(i) for i in range(layers)}
    launches = plan_passes(header, 256).decode.launches
    assert sum(step.op == "flash_decode" for step in launches) == layers


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    assert real_model(str(path), tmp_path, 2) == path
    assert path.read_bytes() == b"GGUF"
