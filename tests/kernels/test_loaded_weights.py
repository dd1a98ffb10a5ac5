"""What `load` puts on the device is what the file has, and launches take it as planned: weights, angles, columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import kernel_runs
from support.activations import EXACT
from support.small_cases import CASES, HEAD
from tinygrad import Tensor, dtypes

from kernels.formats.tiles import tile_planes
from kernels.llm import load, load_planned, plan
from kernels.llm.weights import RawWeight, Weights
from kernels.models.header import read_header
from kernels.models.passes import plan_passes
from kernels.ops.case import PackedRows
from kernels.ops.q8.spec import Q8

CONTEXT = 64


@pytest.mark.parametrize("exact", EXACT)
@pytest.mark.parametrize("name", ["llama", "llama-tied", "phi3", "deepseek2-fused", "deepseek2-whole", "gpt-oss"])
def test_what_is_on_the_device_is_what_is_in_the_file(name: str, exact: bool, tmp_path: Path) -> None:
    CASES[name].write(tmp_path / "a.gguf")
    header, device = read_header(tmp_path / "a.gguf"), kernel_runs.device().name
    passes, weights = plan_passes(header, CONTEXT, device, exact), Weights(header, device)
    layouts: dict[tuple[str, str], set[bool]] = {}
    for launch in (*passes.decode.launches, *passes.prompt.launches):
        there, tiled = weights.operands(launch), launch.x_dtype == Q8
        for operand, wanted in weights.host(launch).items():
            if isinstance(wanted, RawWeight):
                packed = tuple(PackedRows(wanted.format, wanted.rows, len(wanted.rows), wanted.k).planes("w").values())
                reads = [read for read in launch.reads if operand in read.operand.split("+")]
                if tiled:
                    stacked = len(reads[0].tensor.shape) == 3
                    packed = tile_planes(wanted.format, packed, reads[0].tensor.shape[0] if stacked else 1)
                for plane, array in zip(there[operand], packed, strict=False):
                    assert np.array_equal(plane.numpy().reshape(-1), array.reshape(-1))
                for read in reads:
                    layouts.setdefault((read.tensor.name, read.half), set()).add(tiled)
            else:
                assert np.array_equal(there[operand].numpy(), wanted)
    assert all(len(kept) == 1 for kept in layouts.values())
    assert any(True in kept for kept in layouts.values()) == (not exact)


def test_loading_tells_how_much_is_on_the_device(tmp_path: Path) -> None:
    CASES["llama"].write(tmp_path / "a.gguf")
    told: list[int] = []
    planned = plan(read_header(tmp_path / "a.gguf"), CONTEXT, kernel_runs.device().name)
    model = load_planned(planned, kernel_runs.device().name, Weights, told.append)
    assert told == sorted(set(told))
    assert told[-1] == model.sizes.weights_nbytes
    assert told[-1] == pytest.approx(planned.sizes.weights_nbytes, rel=0.05)  # tiles may be padded


@pytest.mark.parametrize(("name", "low"), [("llama-tied", 1.0), ("phi3-long", 1.0), ("phi3-short", 1.5)])
def test_a_loaded_model_turns_by_the_files_angles(name: str, low: float, tmp_path: Path) -> None:
    """Whose factors run evenly up to four times the first one."""
    CASES[name].write(tmp_path / "a.gguf")
    state = load(tmp_path / "a.gguf", CONTEXT, kernel_runs.device().name).program.state
    factors = np.linspace(low, 4 * low, HEAD // 2, dtype=np.float32)
    turns = np.arange(CONTEXT)[:, None] * (10000.0 ** (-np.arange(0, HEAD, 2) / HEAD) / factors)
    size = CASES[name].keys.get("rope.scaling.attn_factor", 1.0)
    for table, wanted in (("cos", np.cos(turns)), ("sin", np.sin(turns))):
        assert np.allclose(state[table].numpy(), size * wanted, atol=1e-6)


def test_what_a_launch_takes_from_several_places_lies_side_by_side(tmp_path: Path) -> None:
    """olmoe's q and k are normalised by launches of their own; v is taken out of the row that all three were in."""
    CASES["olmoe"].write(tmp_path / "a.gguf")
    program = load(tmp_path / "a.gguf", CONTEXT, kernel_runs.device().name).program
    made = {}
    for step in program.steps(
        Tensor([7], dtype=dtypes.int32, device=program.device).realize(), program.position(0), "next"
    ):
        if step.launch.op.endswith("cache_store"):
            break
        made |= {
            str(value).removeprefix("blk.0."): t for value, t in zip(step.launch.outputs, step.written, strict=True)
        }
    q, k, qkv = (made[name].numpy().reshape(-1) for name in ("q_normed", "k_normed", "qkv"))
    assert np.array_equal(step.given["qkv"].numpy().reshape(-1), np.concatenate([q, k, qkv[len(q) + len(k) :]]))
