"""How fast a model generates: seconds from a prompt to its first token, and seconds a token from there on.

Works on anything with tinygrad.llm's `generate(tokens)`. Prompts are random ids, so that no prefix is known already.
The same measurement is taken of every model of a comparison, see `competitors`.
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

WARM_PROMPTS = 2  # TinyJit runs, captures, and only then replays
WARM_TOKENS = 4
PREFILL_RUNS, PREFILL_SECONDS = 3, 10.0
BLOCK = 16  # a model may yield several tokens at once, as many as a power of two
SHORT = 2  # tokens of the prompt of an empty context


class Generates(Protocol):
    """A model: `generate` yields the tokens after `tokens`, and appends each to it."""

    def generate(self, tokens: list[int]) -> Iterator[int]: ...


class AskedError(AutotuneError, ValueError):
    """What was asked for does not fit the model's context."""


@dataclass(frozen=True)
class Asked:
    """What is measured: a prompt of prompt_tokens; then `tokens` tokens from an empty context on, and as many from
    `position` on, if it is not 0."""

    prompt_tokens: int
    tokens: int
    position: int
    context: int
    vocabulary: int

    def __post_init__(self) -> None:
        longest = max(self.prompt_tokens + 1, max(self.position, SHORT) + WARM_TOKENS + self.tokens)
        if min(self.prompt_tokens, self.tokens) < 1 or self.position < 0 or longest > self.context:
            raise AskedError(
                f"{self.prompt_tokens} tokens of a prompt and {self.tokens} tokens from {self.position} on: expected "
                f"some of each, and {longest} tokens to fit the context of {self.context} (--ctx)"
            )


@dataclass(frozen=True)
class Decoded:
    """Seconds a token, of each BLOCK of tokens, the first of which is at `position`."""

    position: int
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Speed:
    """What was measured of one model. prefill_seconds: from the prompt to the first token after it. launches: of a
    token, copies included; None where it isn't known."""

    name: str
    prompt_tokens: int
    prefill_seconds: float
    decoded: tuple[Decoded, ...]
    launches: int | None = None

    @property
    def prefill_rate(self) -> float:
        return self.prompt_tokens / self.prefill_seconds


def speed(name: str, model: Generates, asked: Asked) -> Speed:
    """Measures after warming up; takes as long as it takes."""
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
    """Kernels and copies that a token really takes, of a model that has decoded some."""
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
    """Has the model take all but the last of `tokens` for read. What its caches hold costs the same to attend to."""
    if hasattr(model, "_cached_tokens"):
        model._cached_tokens = tokens[:-1]
