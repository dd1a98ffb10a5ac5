"""One prompt by several paths: read at once, in pieces, and token by token. All must give the same logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autotune.model_check.parting import LIMIT, Parting, difference, parting
from kernels.llm.model import Transformer

# on both sides of every number of tokens that is read at once, of the size of a tile, and of a few of them
LENGTHS = (1, 2, 16, 17, 18, 31, 33, 70, 513)
CAPTURED_LIMIT = 1e-6  # the same launches compute the same, but the last few are tinygrad's own

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PathCheck:
    """A prompt of `length` tokens, read by a path, against the same read token by token.

    path: "at once", "in pieces" (a third of it was read before), "next token" (the captured step's greedy choice), or
    "token by token" where already that is no number. difference: of the logits, relative; None for the choice. parted:
    where that is above LIMIT, how both paths compare with what rounding decides decided alike; if they agree then, the
    difference is one of rounding.
    """

    length: int
    path: str
    ok: bool
    difference: float | None = None
    parted: Parting | None = None
    reason: str = ""


def check_paths(model: Transformer, tokens: Sequence[int], lengths: Sequence[int]) -> Iterator[PathCheck]:
    """Checks prompts of each of `lengths`, the first of `tokens`. Lengths beyond the context are left out."""
    fitting = sorted({length for length in lengths if length <= model.max_context})
    expected: dict[int, Logits] = {}
    model.forget()
    for length in fitting:
        expected[length] = model.logits(list(tokens[:length]), at_once=False)
    for length in fitting:
        yield from _check(model, list(tokens[:length]), expected[length])


def _check(model: Transformer, tokens: list[int], expected: Logits) -> Iterator[PathCheck]:
    if not np.isfinite(expected).all():
        yield PathCheck(len(tokens), "token by token", False, reason="the logits are not finite")
        return
    model.forget()
    yield _compared(model, tokens, "at once", model.logits(tokens), expected)
    if len(tokens) > 2:
        model.forget()
        model.logits(tokens[: len(tokens) // 3])
        yield _compared(model, tokens, "in pieces", model.logits(tokens), expected)
    if len(tokens) < model.max_context:
        yield _next(model, tokens, expected)


def _compared(model: Transformer, tokens: list[int], path: str, found: Logits, expected: Logits) -> PathCheck:
    off = difference(found, expected)
    if off <= LIMIT:
        return PathCheck(len(tokens), path, True, off)
    parted = parting(model, tokens)
    if path == "at once" and difference(found, parted.logits) > CAPTURED_LIMIT:
        parted = replace(parted, first="the captured passes differ from the same launches one by one")
    return PathCheck(len(tokens), path, not parted.first, off, parted, parted.first)


def _next(model: Transformer, tokens: list[int], expected: Logits) -> PathCheck:
    """The token that generating goes on with is the likeliest one."""
    token = next(model.generate(list(tokens)))
    best = int(expected.argmax())
    margin = float(expected[best] - expected[token])
    ok = margin <= LIMIT * float(np.abs(expected).max())
    reason = "" if ok else f"token {token} was generated, {best} is {margin:.3g} above it"
    return PathCheck(len(tokens), "next token", ok, None, reason=reason)
