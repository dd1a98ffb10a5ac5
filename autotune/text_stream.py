"""Text out of a model, as it comes, and what it took. Neither opens the model nor prints."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from autotune.tokenizer import Tokenizer

CAPTURED_AFTER = 1  # tokens: until then kernels are compiled, and the launches captured


@dataclass
class TextStream:
    """One text. Iterate over it once: it yields pieces of text; what it knows grows with them.

    tokenizer: None yields ids, as text, instead.
    """

    model: Any
    tokenizer: Tokenizer | None
    prompt: list[int]
    max_tokens: int
    temperature: float = 0.0
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each token; of the first with the prompt
    stopped: bool = False  # the model ended the text

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
        """Tokens of the prompt a second, compiling included if this is the first text."""
        return len(self.prompt) / self.seconds[0] if self.seconds else None

    @property
    def decode_rate(self) -> float | None:
        """Tokens a second once launches are captured, on the whole: several may come at once. None if it was over
        before."""
        later = self.seconds[CAPTURED_AFTER:]
        return len(later) / sum(later) if later else None
