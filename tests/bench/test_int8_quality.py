"""Activations in int8 cost real models no more than llama.cpp's do: the KL divergence from float32."""

from __future__ import annotations

import numpy as np
import pytest
from support import kernel_runs
from support.activations import EXACT
from support.real_files import GEMMA, SMOLLM2, needs_real_files, real_file
from support.tiers import few_of

from bench.int8_quality import LIMIT, compared, log_softmax, ours, tokens_of
from kernels.llm import load

TOKENS = 64
LLAMA_CPP = {SMOLLM2: 3.62e-3, GEMMA: 4.53e-3}  # over these tokens: bench/int8_quality.py --tokens 64


@needs_real_files
@pytest.mark.skipif(EXACT == (True,), reason="linears read float32 on this device")
@pytest.mark.parametrize("name", few_of(LLAMA_CPP, lambda name: name == SMOLLM2))
def test_real_models_lose_no_more_than_in_llama_cpp(name: str) -> None:
    path, device = real_file(name), kernel_runs.device().name
    tokens = tokens_of(path, TOKENS)
    exact = list(ours(load(path, 2 * TOKENS, device, exact=True), tokens))
    int8 = compared(exact, ours(load(path, 2 * TOKENS, device), tokens), tokens)
    float32 = compared(exact, exact, tokens)
    assert 1e-4 < int8.kl <= LIMIT * LLAMA_CPP[name]
    assert int8.same > 0.9
    assert int8.perplexity == pytest.approx(float32.perplexity, rel=0.05)


def test_the_divergence_of_what_is_known() -> None:
    p, q = (log_softmax(np.log(np.array(row, np.float32))) for row in ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]))
    found = compared([p, p], [p, q], [1, 1])
    assert found.kl == pytest.approx(0.5 * 0.25 * np.log(2))
    assert found.same == 0.5
    assert found.perplexity == pytest.approx(4)
