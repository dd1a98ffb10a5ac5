"""What is planned for each architecture, done in numpy, beside llama.cpp on the same weights: no kernel is compiled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.numpy_model import NumpyModel
from support.real_files import DATA
from support.small_cases import CASES

SAID = json.loads((DATA / "small.json").read_text())["cases"]
CONTEXT = 64
# of the largest logit
TOLERANCE = 5e-6  # llama.cpp computes in float32
GELU = 2e-4  # which llama.cpp looks up in a table of halves
HALVES = 1e-3  # keys become F16 when the file is read


def tolerance(name: str) -> float:
    if CASES[name].architecture.startswith("gemma"):
        return GELU
    return HALVES if any("attn_kv_b" in tensor for tensor in CASES[name].block) else TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_a_plan_means_what_llama_cpp_says(name: str, tmp_path: Path) -> None:
    """The logits after the prompt, and those after what llama.cpp says then; all but the last token in two chunks."""
    said, done = SAID[name], 0
    CASES[name].write(tmp_path / "a.gguf")
    model = NumpyModel(tmp_path / "a.gguf", CONTEXT)
    for tokens, logits in zip((said["prompt"], said["prompt"] + said["greedy"]), said["logits"], strict=False):
        count = len(tokens) - done
        sizes = (count // 2, count - 1 - count // 2, 1)
        row = model.logits(tokens[done:], [size for size in sizes if size], done)
        done = len(tokens)
        values = np.array(logits["values"])
        assert np.abs(row[logits["ids"]] - values).max() < tolerance(name) * np.abs(values).max()
