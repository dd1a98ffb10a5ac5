"""Streams a model's text and records the time of each token."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from autotune.tokenizer import Tokenizer

CAPTURED_AFTER = 1  # the number of tokens during which kernels are compiled and launches are captured


@dataclass
class TextStream:
    """One text. Iterate over it once: it yields pieces of text, and updates the fields below.

    tokenizer   None yields token ids as text instead
    seconds     of each token; the first includes reading the prompt
    stopped     whether the model ended the text
    """

    model: Any
    tokenizer: Tokenizer | None
    prompt: list[int]
    max_tokens: int
    temperature: float = 0.0
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopped: bool = False

    def __iter__(self) -> Iterator[str]:
        decoder = self.tokenizer.decoder() if self.tokenizer else None
        coming = self.model.generate(list(self.prompt), temperature=self.temperature)
        before = time.perf_counter()
        for token in itertools.islice(coming, self.max_tokens):
            now = time.perf_counter()
            self.tokens.append(token)
            self.seconds.append(now - before)
            before = now
            if self.tokenizer and token in self.tokenizer.ends:
                self.stopped = True
                break
            yield decoder.feed(token) if decoder else f"{token} "
        if decoder:
            yield decoder.end()

    @property
    def prefill_rate(self) -> float | None:
        """Tokens of the prompt per second. For the first text, the time includes compiling."""
        return len(self.prompt) / self.seconds[0] if self.seconds else None

    @property
    def decode_rate(self) -> float | None:
        """Decoded tokens per second after the launches are captured, averaged because several tokens may come at once.
        None if the text ended before."""
        later = self.seconds[CAPTURED_AFTER:]
        return len(later) / sum(later) if later else None
