"""Models at their real shapes, with the formats that real files mix: every launch and every path is right.

Random weights, four layers of every kind that a model has. `.ci/run` checks the narrower of the twelve models with
a small vocabulary and some prompts, `.ci/run nightly` all of them with their whole vocabularies and more prompts;
`python -m bench.model_paths` has longer ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support import gguf_files, kernel_runs
from support.activations import EXACT
from support.full_models import write_full_model
from support.tiers import few_of

from autotune.model_check.paths import LENGTHS
from autotune.model_check.whole import Asked, checks
from kernels.llm import load
from kernels.models.header import read_header

LAYERS, CONTEXT = 4, 128
FEW_TOKENS = 8192  # with the whole vocabulary, one launch of many, the head, takes most of a check's time
ALL_LENGTHS = tuple(length for length in LENGTHS if length <= CONTEXT)
FEW_LENGTHS = (1, 17, 31, 33, 70)
NARROW = ("smollm2-135m", "qwen3-0.6b", "gemma-3-1b", "llama-3.2-1b", "youtu-llm-2b")
WIDE = (
    "deepseek-v2-lite",
    "glm-4.7-flash",
    "gpt-oss-20b",
    "llama-3.1-8b",
    "llama-3.2-3b",
    "qwen3-1.7b",
    "qwen3-8b",
)
MODELS = (*NARROW, *WIDE)
MIXED = {  # of attn_v and ffn_down: what a file of one format would not show
    "smollm2-135m": {"Q8_0", "Q5_0", "Q6_K", "Q4_K"},
    "llama-3.2-1b": {"Q4_K", "Q6_K"},
}


def test_they_are_the_models_of_the_data() -> None:
    assert sorted(MODELS) == sorted(path.stem for path in gguf_files.MODELS.glob("*.json"))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "vocabulary", "lengths"),
    [
        *(pytest.param(name, FEW_TOKENS, FEW_LENGTHS, marks=pytest.mark.slow, id=name) for name in NARROW),
        *(pytest.param(name, None, ALL_LENGTHS, marks=pytest.mark.nightly, id=f"{name}-whole") for name in MODELS),
    ],
)
@pytest.mark.parametrize("exact", few_of(EXACT, lambda exact: exact == EXACT[-1], pytest.mark.nightly))
def test_a_model_of_mixed_formats_is_right_on_every_path(
    name: str, vocabulary: int | None, lengths: Sequence[int], exact: bool, tmp_path: Path
) -> None:
    path = write_full_model(name, tmp_path / "model.gguf", LAYERS, vocabulary)
    model = load(path, CONTEXT, kernel_runs.device().name, exact)
    wrong = [check for check in checks(model, Asked(lengths)) if not check.ok]
    path.unlink()
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXED)
def test_the_layers_that_are_kept_mix_formats(name: str, tmp_path: Path) -> None:
    header = read_header(write_full_model(name, tmp_path / "model.gguf", LAYERS, FEW_TOKENS))
    formats = [
        {t.name.split(".")[2]: t.format for t in header.tensors if t.name.startswith(f"blk.{layer}.")}
        for layer in range(LAYERS)
    ]
    assert {f[name] for f in formats for name in ("attn_v", "ffn_down")} == MIXED[name]
    fused = [f["attn_q"] == f["attn_k"] == f["attn_v"] for f in formats]
    assert any(mixed and after for mixed, after in zip([not f for f in fused], fused[1:], strict=False))
