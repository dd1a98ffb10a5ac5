"""What is planned for each architecture, done in numpy, beside llama.cpp on the same weights: no kernel is compiled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.numpy_model import NumpyModel
from support.real_files import DATA
from support.small_cases import CASES, TELLING
from support.small_models import Small

SAID, TOLD = (json.loads((DATA / f"{name}.json").read_text())["cases"] for name in ("small", "telling"))
CONTEXT = 64
LONG = 512  # that the telling cases are made for, and where a GPU divides the context
NEAR_TIE = 1e-3

# of the largest logit
TOLERANCE = 5e-6  # llama.cpp computes in float32
GELU, MANY_GELUS = 2e-4, 2e-3  # which llama.cpp looks up in a table of halves, in each layer
HALVES = 1e-3  # keys become F16 when the file is read


def tolerance(case: Small) -> float:
    if case.architecture.startswith("gemma"):
        return MANY_GELUS if case.keys.get("block_count", 0) > 8 else GELU
    return HALVES if any("attn_kv_b" in tensor for tensor in case.block) else TOLERANCE


def opened(case: Small, said: Mapping[str, Any], folder: Path, context: int, device: str = "CPU") -> NumpyModel:
    path = folder / "a.gguf"
    case.write(path)
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    assert known == said["sha256"], "make the data anew: bench/llama_reference.py"
    return NumpyModel(path, context, device)


def assert_said(model: NumpyModel, case: Small, said: Mapping[str, Any]) -> None:
    """The logits after a prompt in two chunks, and those after two more chunks and a step, of what llama.cpp says then.

    What a prompt's last layer makes is in the first only: the caches are those of the layers before it.
    """
    done, near = 0, tolerance(case)
    for tokens, logits in zip((said["prompt"], said["prompt"] + said["greedy"]), said["logits"], strict=False):
        count = len(tokens) - done
        step = int(done > 0)
        sizes = (count // 2, count - step - count // 2, step)
        row, chosen = model.read(tokens[done:], [size for size in sizes if size], done)
        if done == 0 and said["margins"] and said["margins"][0] > NEAR_TIE:
            assert chosen == said["greedy"][0]
        done = len(tokens)
        values = np.array(logits["values"])
        assert np.abs(row[logits["ids"]] - values).max() < near * np.abs(values).max()


@pytest.mark.parametrize("name", CASES)
def test_a_plan_means_what_llama_cpp_says(name: str, tmp_path: Path) -> None:
    assert_said(opened(CASES[name], SAID[name], tmp_path, CONTEXT), CASES[name], SAID[name])


@pytest.mark.parametrize("name", TELLING)
def test_keys_that_are_no_defaults_mean_what_llama_cpp_says(name: str, tmp_path: Path) -> None:
    assert_said(opened(TELLING[name], TOLD[name], tmp_path, LONG), TELLING[name], TOLD[name])


@pytest.mark.parametrize("name", ["qwen3", "deepseek2", "gpt-oss"])
def test_a_context_in_parts_is_the_same_as_a_whole_one(name: str, tmp_path: Path) -> None:
    model = opened(TELLING[name], TOLD[name], tmp_path, LONG, device="")
    assert any(launch.op == "flash_combine" for launch in model.passes.decode.launches)
    assert_said(model, TELLING[name], TOLD[name])
