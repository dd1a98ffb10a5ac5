"""Runs all checks of a loaded model, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autotune.model_check.float_twin import temporary_twin
from autotune.model_check.launches import LaunchCheck, check_launches, passes
from autotune.model_check.llama_cpp import LlamaCheck, check_against, check_installed
from autotune.model_check.paths import PathCheck, check_paths
from kernels.llm.model import Transformer
from kernels.llm.weights import Weights

GREEDY_TOKENS = 16  # after each prompt that is compared with llama.cpp
AGAINST_LENGTHS = (5, 40, 41, 150, 300)
AGAINST_CONTEXT = min(AGAINST_LENGTHS) + GREEDY_TOKENS  # the smallest context in which one of these prompts fits

Check = LaunchCheck | PathCheck | LlamaCheck


@dataclass(frozen=True)
class Asked:
    """What to check. lengths: of the prompts. seed: for drawing their tokens. against: also compare a model whose
    activations are float32 with llama.cpp."""

    lengths: Sequence[int]
    seed: int = 0
    against: bool = False


def launch_count(model: Transformer) -> int:
    """The number of launches that `checks` will judge."""
    return sum(len(model.program.of(tokens).launches) for _, tokens in passes(model.max_context))


def checks(model: Transformer, asked: Asked) -> Iterator[Check]:
    """Yields each check when it is done. Raises LlamaCppError and ChildFault if llama.cpp fails, and FileError if the
    disk has no room for the weights in F32."""
    against = asked.against and model.exact
    if against:
        check_installed()
    drawn = np.random.default_rng(asked.seed).integers(0, model.vocabulary, model.max_context)
    tokens = drawn.tolist()
    yield from check_launches(model, Weights(model.plan.header, model.program.device), tokens)
    yield from check_paths(model, tokens, asked.lengths)
    if against:
        lengths = [n for n in AGAINST_LENGTHS if n + GREEDY_TOKENS <= model.max_context]
        with temporary_twin([Path(name) for name in model.plan.header.files]) as twin:
            yield from check_against(model, twin, [tokens[:n] for n in lengths], GREEDY_TOKENS)
