"""A model's logits and greedy tokens against llama.cpp's on the same weights, widened to F32.

llama.cpp runs in a process of its own, on the CPU, with a cache in F32: so its answer is that of the weights, not of
its roundings. Ours has a cache in F16.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.model_check.parting import difference
from autotune.trial.child import Child
from db.errors import AutotuneError
from kernels.llm.model import Transformer

LIMIT = 2e-2  # relative difference of the logits: a cache in F16 alone makes some 1e-3 of it
NEAR_TIE = 0.05  # a token this much likelier than the next may be either
TIMEOUT_SECONDS = 3600.0

Logits = npt.NDArray[np.float32]


class LlamaCppError(AutotuneError):
    """llama.cpp is not here, or cannot run the model. The message says why and what to do."""


@dataclass(frozen=True)
class Answer:
    """What llama.cpp says after a prompt: its greedy tokens, by how much each of them leads, and the logits [2,
    vocabulary] after the prompt and after the last of these tokens."""

    prompt: list[int]
    tokens: list[int]
    margins: list[float]
    logits: Logits

    @property
    def sure(self) -> int:
        """How many tokens come before the first that may be another."""
        return next((i for i, margin in enumerate(self.margins) if margin < NEAR_TIE), len(self.tokens))


@dataclass(frozen=True)
class LlamaCheck:
    """A prompt against llama.cpp. difference: of the logits, the larger of those after the prompt and after all greedy
    tokens. equal: how many of the `sure` tokens are the same, up to the first that is not."""

    length: int
    difference: float
    equal: int
    sure: int

    @property
    def ok(self) -> bool:
        return not self.reason

    @property
    def reason(self) -> str:
        """What is wrong, "" if nothing is."""
        found = []
        if not self.difference <= LIMIT:
            found.append(f"the logits differ by {self.difference:.1e}, more than {LIMIT:g}")
        if self.equal < self.sure:
            found.append(f"greedy token {self.equal + 1} of {self.sure} is another")
        return ", ".join(found)


def check_against(model: Transformer, twin: Path, prompts: Sequence[list[int]], count: int) -> Iterator[LlamaCheck]:
    """Compares `count` greedy tokens after each prompt, and the logits; in order, with whatever the caches hold.

    twin: the model's weights in F32 (`float_twin`). Raises LlamaCppError, ChildFault where llama.cpp ends badly.
    """
    for answer in answers(twin, prompts, count, model.max_context):
        first = model.logits(answer.prompt)
        generated = list(itertools.islice(model.generate(list(answer.prompt)), answer.sure))
        pairs = zip(generated, answer.tokens, strict=False)
        equal = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        last = model.logits(answer.prompt + answer.tokens)
        off = max(difference(found, wanted) for found, wanted in zip((first, last), answer.logits, strict=True))
        yield LlamaCheck(len(answer.prompt), off, equal, answer.sure)


def check_installed() -> None:
    """Raises LlamaCppError where llama.cpp is not here."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise LlamaCppError("llama-cpp-python is not installed: pip install 'tinygrad-autotune[bench]'")


def answers(twin: Path, prompts: Sequence[list[int]], count: int, context: int) -> Iterator[Answer]:
    """llama.cpp's answers to each prompt. Raises LlamaCppError, ChildFault."""
    check_installed()
    child = Child(__name__)
    try:
        child.send((str(twin), context))
        for prompt in prompts:
            child.send((prompt, count))
            answer = child.receive(TIMEOUT_SECONDS)
            if isinstance(answer, str):
                raise LlamaCppError(answer)
            yield answer
    finally:
        child.close()


def main(connection: Connection[Any, Any]) -> None:
    """The child: a model, then a prompt and a count for each Answer."""
    path, context = connection.recv()
    try:
        model = open_model(path, context)
    except ValueError as e:
        connection.recv()
        connection.send(f"llama.cpp cannot open {path}: {e}")
        return
    while True:
        connection.send(answer(model, *connection.recv()))


def open_model(path: str, context: int) -> Any:
    """A model of llama-cpp-python on the CPU, cache in F32. Raises ValueError where it cannot be opened."""
    from llama_cpp import GGML_TYPE_F32, Llama

    options: dict[str, Any] = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32, "n_gpu_layers": 0}
    # -1: what the file says; the package's own defaults would go before it
    options |= dict.fromkeys(("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"), -1.0)
    return Llama(path, n_ctx=context, n_batch=context, logits_all=True, verbose=False, **options)


def answer(model: Any, prompt: list[int], count: int) -> Answer:
    """`count` greedy tokens after a prompt."""
    model.reset()
    model.eval(list(prompt))
    tokens, margins = [], []
    logits = [np.array(model.scores[len(prompt) - 1], np.float32)]
    for _ in range(count):
        row = model.scores[model.n_tokens - 1]
        second, best = np.sort(row)[-2:]
        tokens.append(int(row.argmax()))
        margins.append(float(best - second))
        model.eval(tokens[-1:])
    logits.append(np.array(model.scores[model.n_tokens - 1], np.float32))
    return Answer(prompt, tokens, margins, np.stack(logits))
