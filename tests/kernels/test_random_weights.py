"""The random weights of test models have the statistics that their docstring promises."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from support.gguf_files import load_model
from support.random_weights import random_rows, score_factor

from kernels.formats import reference

TOKENS, HEADS, HEAD = 64, 8, 64
MODELS = {"gpt-oss-20b": (1 + 0.1 * math.log(32)) ** 2, "llama-3.2-1b": 1.0}  # what YaRN multiplies scores by


def _weights(name: str, shape: tuple[int, ...], format: str, factor: float = 1.0) -> npt.NDArray[np.float32]:
    rows = random_rows(name, shape, format, tied=False, score_factor=factor)
    return reference.dequantize(rows, format, (len(rows), shape[-1]))


@pytest.mark.parametrize("name", MODELS)
def test_scores_of_attention_spread_as_in_trained_models(name: str) -> None:
    metadata, tensors = load_model(name)
    facts = {tensor: (shape[-1], format) for tensor, shape, format in tensors}
    k = facts["blk.0.attn_q.weight"][0]
    x = np.random.default_rng(0).standard_normal((TOKENS, k), np.float32)

    def heads(which: str) -> npt.NDArray[np.float32]:
        weight, bias = f"blk.0.{which}.weight", f"blk.0.{which}.bias"
        made = x @ _weights(weight, (HEADS * HEAD, k), facts[weight][1], score_factor(metadata)).T
        if bias in facts:
            made += _weights(bias, (HEADS * HEAD,), "F32", score_factor(metadata))[0]
        return made.reshape(TOKENS, HEADS, HEAD)

    scores = MODELS[name] * np.einsum("qhd,khd->hqk", heads("attn_q"), heads("attn_k")) / HEAD**0.5
    assert 2.0 < scores.std(-1).mean() < 2.6


@pytest.mark.parametrize("format", ["F16", "Q4_K", "Q6_K", "Q8_0", "Q5_1", "IQ4_XS", "MXFP4"])
def test_products_keep_the_size_of_activations(format: str) -> None:
    made = _weights("blk.0.ffn_down.weight", (512, 2816), format)
    assert abs(made.mean()) * 2816**0.5 < 0.01
    assert made.std() * 2816**0.5 == pytest.approx(1.0, rel=0.01)
