"""Compares a model's logits and greedy tokens with llama.cpp's on the same weights, widened to F32.

llama.cpp runs in its own process, on the CPU, with a cache in F32, so that its results contain little rounding. Our
cache is in F16.
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

LIMIT = 2e-2  # relative difference of the logits; about 1e-3 comes from our cache in F16
NEAR_TIE = 0.05  # if the two largest logits differ by less than this, either token is accepted
TIMEOUT_SECONDS = 3600.0

Logits = npt.NDArray[np.float32]


class LlamaCppError(AutotuneError):
    """llama.cpp is not installed, or cannot run the model. The message has the reason and the remedy."""


@dataclass(frozen=True)
class Answer:
    """llama.cpp's results for a prompt.

    tokens    the greedy tokens
    margins   for each token, its logit minus the second largest logit
    logits    [2, vocabulary], after the prompt and after the last of these tokens
    """

    prompt: list[int]
    tokens: list[int]
    margins: list[float]
    logits: Logits

    @property
    def sure(self) -> int:
        """The number of tokens before the first near-tie."""
        return next((i for i, margin in enumerate(self.margins) if margin < NEAR_TIE), len(self.tokens))


@dataclass(frozen=True)
class LlamaCheck:
    """The comparison of one prompt.

    difference   relative difference of the logits, the larger of those after the prompt and after all greedy tokens
    sure         the number of greedy tokens before the first near-tie
    equal        the number of equal tokens before the first different one, of the `sure` tokens
    """

    length: int
    difference: float
    equal: int
    sure: int

    @property
    def ok(self) -> bool:
        return not self.reason

    @property
    def reason(self) -> str:
        """The reason why the check failed, "" if it did not."""
        found = []
        if not self.difference <= LIMIT:
            found.append(f"the logits differ by {self.difference:.1e}, more than {LIMIT:g}")
        if self.equal < self.sure:
            found.append(f"greedy token {self.equal + 1} of {self.sure} is different")
        return ", ".join(found)


def check_against(model: Transformer, twin: Path, prompts: Sequence[list[int]], count: int) -> Iterator[LlamaCheck]:
    """Compares the logits and `count` greedy tokens after each prompt, in order. The model's caches are not emptied.

    twin: the model's weights in F32 (`float_twin`). Raises LlamaCppError, and ChildFault if llama.cpp's process fails.
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
    """Raises LlamaCppError if llama.cpp is not installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise LlamaCppError("llama-cpp-python is not installed: pip install 'tinygrad-autotune[bench]'")


def answers(twin: Path, prompts: Sequence[list[int]], count: int, context: int) -> Iterator[Answer]:
    """llama.cpp's results for each prompt. Raises LlamaCppError, ChildFault."""
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
    """The child process: receives a model's path and context, then (prompt, count) for each Answer that it sends."""
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
    """Opens a model in llama-cpp-python, on the CPU and with a cache in F32. Raises ValueError if it cannot be
    opened."""
    from llama_cpp import GGML_TYPE_F32, Llama

    options: dict[str, Any] = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32, "n_gpu_layers": 0}
    # -1 means the file's value; the package's own defaults would override it
    options |= dict.fromkeys(("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"), -1.0)
    return Llama(path, n_ctx=context, n_batch=context, logits_all=True, verbose=False, **options)


def answer(model: Any, prompt: list[int], count: int) -> Answer:
    """Decodes `count` greedy tokens after a prompt."""
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
