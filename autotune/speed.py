"""Measures a model's speed: seconds from a prompt to the first token, and seconds for each token after that.

Works with every model that has tinygrad.llm's `generate(tokens)`. Prompts are random ids, so that no prefix is in the
model's caches. `competitors` measures other implementations in the same way.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from autotune.trial.statistics import median
from db.errors import AutotuneError

WARM_PROMPTS = 2  # TinyJit runs the first call, captures the second, and replays the third
WARM_TOKENS = 4
PREFILL_RUNS, PREFILL_SECONDS = 3, 10.0
BLOCK = 16  # tokens are timed in blocks, because a model may yield several tokens at once, a power of two
SHORT = 2  # the length of the prompt for decoding from an empty context


class Generates(Protocol):
    """A model whose `generate` yields the tokens that follow `tokens`, and appends each to the list."""

    def generate(self, tokens: list[int]) -> Iterator[int]: ...


class AskedError(AutotuneError, ValueError):
    """The requested measurement does not fit the model's context."""


@dataclass(frozen=True)
class Asked:
    """What to measure: reading a prompt of prompt_tokens, decoding `tokens` tokens from an empty context, and, unless
    `position` is 0, decoding `tokens` tokens from there."""

    prompt_tokens: int
    tokens: int
    position: int
    context: int
    vocabulary: int

    def __post_init__(self) -> None:
        longest = max(self.prompt_tokens + 1, max(self.position, SHORT) + WARM_TOKENS + self.tokens)
        if min(self.prompt_tokens, self.tokens) < 1 or self.position < 0 or longest > self.context:
            raise AskedError(
                f"{self.prompt_tokens} tokens of a prompt and {self.tokens} decoded from position {self.position}: "
                f"expected at least 1 of each, and {longest} tokens to fit the context of {self.context} (--ctx)"
            )


@dataclass(frozen=True)
class Decoded:
    """Seconds for each token, averaged over each BLOCK of tokens. position: of the first token."""

    position: int
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Speed:
    """The measured speed of one model. prefill_seconds: from the prompt to the first token after it. launches: of one
    token, including copies; None if unknown."""

    name: str
    prompt_tokens: int
    prefill_seconds: float
    decoded: tuple[Decoded, ...]
    launches: int | None = None

    @property
    def prefill_rate(self) -> float:
        return self.prompt_tokens / self.prefill_seconds


def speed(name: str, model: Generates, asked: Asked) -> Speed:
    """Measures a model after warming it up."""
    chance = random.Random(0)

    def prompt(count: int) -> list[int]:
        return [chance.randrange(asked.vocabulary) for _ in range(count)]

    for _ in range(WARM_PROMPTS):
        next(model.generate(prompt(asked.prompt_tokens)))
    prefills: list[float] = []
    while len(prefills) < PREFILL_RUNS and sum(prefills) < PREFILL_SECONDS:
        prefills.append(_seconds(model.generate(prompt(asked.prompt_tokens)), 1))
    decoded = [_decoded(model, prompt(SHORT), asked.tokens)]
    if asked.position:
        tokens = prompt(asked.position)
        _assume(model, tokens)
        decoded.append(_decoded(model, tokens, asked.tokens))
    return Speed(name, asked.prompt_tokens, median(prefills), tuple(decoded))


def launches(model: Generates) -> int:
    """The number of kernels and copies that decoding one token launches. The model must have decoded tokens before."""
    from autotune.tinygrad_api.captured import recorded_launches

    coming = model.generate(list(range(1, SHORT + 1)))
    if hasattr(model, "lookahead"):  # tinygrad.llm has none
        model.lookahead = 1
    next(coming)
    with recorded_launches() as launched:
        next(coming)
    return len(launched)


def _decoded(model: Generates, tokens: list[int], count: int) -> Decoded:
    coming = model.generate(tokens)
    for _ in range(WARM_TOKENS):
        next(coming)
    start = len(tokens) - 1
    blocks = [min(BLOCK, count - done) for done in range(0, count, BLOCK)]
    return Decoded(start, tuple(_seconds(coming, block) / block for block in blocks))


def _seconds(coming: Iterator[int], count: int) -> float:
    start = time.perf_counter()
    for _ in itertools.islice(coming, count):
        pass
    return time.perf_counter() - start


def _assume(model: Any, tokens: list[int]) -> None:
    """Makes the model assume that all but the last of `tokens` are in its caches. Their contents do not affect the
    time."""
    if hasattr(model, "_cached_tokens"):
        model._cached_tokens = tokens[:-1]
