"""What `load` puts on the device is what the file has, and launches take it as planned: weights, angles, columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import kernel_runs
from support.small_cases import CASES, HEAD
from tinygrad import Tensor, dtypes

from kernels.llm import load
from kernels.llm.weights import RawWeight, Weights
from kernels.models.header import read_header
from kernels.models.passes import plan_passes
from kernels.ops.case import PackedRows

CONTEXT = 64


@pytest.mark.parametrize("name", ["llama", "phi3", "deepseek2-fused", "deepseek2-whole", "gpt-oss"])
def test_what_is_on_the_device_is_what_is_in_the_file(name: str, tmp_path: Path) -> None:
    CASES[name].write(tmp_path / "a.gguf")
    header, device = read_header(tmp_path / "a.gguf"), kernel_runs.device().name
    passes, weights = plan_passes(header, CONTEXT, device), Weights(header, device)
    for launch in (*passes.decode.launches, *passes.prompt.launches):
        there = weights.operands(launch)
        for operand, wanted in weights.host(launch).items():
            if isinstance(wanted, RawWeight):
                packed = PackedRows(wanted.format, wanted.rows, len(wanted.rows), wanted.k).planes("w")
                for plane, array in zip(there[operand], packed.values(), strict=False):
                    assert np.array_equal(plane.numpy().reshape(-1), array.reshape(-1))
            else:
                assert np.array_equal(there[operand].numpy(), wanted)


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
        if step.launch.op == "rope_cache_store":
            break
        made |= {
            str(value).removeprefix("blk.0."): t for value, t in zip(step.launch.outputs, step.written, strict=True)
        }
    q, k, qkv = (made[name].numpy().reshape(-1) for name in ("q_normed", "k_normed", "qkv"))
    assert np.array_equal(step.given["qkv"].numpy().reshape(-1), np.concatenate([q, k, qkv[len(q) + len(k) :]]))
