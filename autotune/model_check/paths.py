"""One prompt by several paths: read at once, in pieces, and token by token. All must give the same logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotune.model_check.parting import LIMIT, Parting, Reading, difference, parting
from kernels.llm.model import Transformer
from kernels.llm.prompt import CHUNKS
from kernels.tinygrad.upload import overwrite

# on both sides of every number of tokens that is read at once, of the size of a tile, and of a few of them
LENGTHS = (1, 2, 16, 17, 18, 31, 33, 70, 513)
CAPTURED_LIMIT = 1e-6  # the same launches compute the same, but the last few are tinygrad's own
STALE = 3.0  # what caches hold before a path writes them: finite, for attention may multiply it by 0

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PathCheck:
    """A prompt of `length` tokens, read by a path, against the same prompt read token by token.

    path: "at once"; "in pieces" (the first third, and then the rest); "next token" (the captured step's greedy choice);
    or "token by token" where already these logits are not finite. difference: of the logits, relative; None for the
    choice. parted: where that is above LIMIT, what is left of it if both paths round and choose experts alike. The
    check is right then only if nothing is left and the logits are those of the same launches run one by one.
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
    _forget(model)
    for length in fitting:
        expected[length] = model.logits(list(tokens[:length]), at_once=False)
    if chunk := next((length for length in fitting if length > CHUNKS[-1] // 2 + 1), 0):
        _forget(model)
        model.logits(list(tokens[:chunk]))  # once a chunk is captured, shorter prompts are read at once, too
    for length in fitting:
        yield from _check(model, list(tokens[:length]), expected[length])


def _forget(model: Transformer) -> None:
    """Empties the caches, so that a path cannot do with what another path has left in them."""
    model.forget()
    for label, value in model.program.decode.plan.inputs.items():
        if value.persistent:
            cache = model.program.state[label]
            overwrite(cache, np.full(cache.shape, STALE, np.float16))


def _check(model: Transformer, tokens: list[int], expected: Logits) -> Iterator[PathCheck]:
    if not np.isfinite(expected).all():
        yield PathCheck(len(tokens), "token by token", False, reason="the logits are not finite")
        return
    yield _compared(model, tokens, "at once", [len(tokens)], expected)
    if len(tokens) > 2:
        yield _compared(model, tokens, "in pieces", [len(tokens) // 3, len(tokens)], expected)
    yield _next(model, tokens)


def _compared(model: Transformer, tokens: list[int], path: str, ends: Sequence[int], expected: Logits) -> PathCheck:
    """ends: where the pieces end that the prompt is read in."""
    found, readings = _read(model, tokens, ends)
    off = difference(found, expected)
    if off <= LIMIT:
        return PathCheck(len(tokens), path, True, off)
    parted = parting(model, tokens, readings)
    reason = parted.first
    for which, captured, single in ((path, found, parted.logits), ("token by token", expected, parted.single)):
        if not reason and (apart := difference(captured, single)) > CAPTURED_LIMIT:
            reason = f"{which}, the captured passes differ by {apart:.1e} from the same launches one by one"
    return PathCheck(len(tokens), path, not reason, off, parted, reason)


def _read(model: Transformer, tokens: list[int], ends: Sequence[int]) -> tuple[Logits, list[Reading]]:
    """The logits after a prompt that is read in pieces, and the passes that were made for it."""
    readings: list[Reading] = []
    _forget(model)
    for end in ends:
        piece, last = tokens[:end], end - 1
        for position, size in model.reads(model.get_start_pos(piece), last):
            readings.append(Reading(position, size, piece[position : min(position + size, last)]))
        readings.append(Reading(last, 1, piece[last:]))
        found = model.logits(piece)
    return found, readings


def _next(model: Transformer, tokens: list[int]) -> PathCheck:
    """The token that generating goes on with is the likeliest one, over the same caches."""
    logits = model.logits(tokens)
    token = next(model.generate(list(tokens)))
    best = int(logits.argmax())
    margin = float(logits[best] - logits[token])
    ok = margin <= LIMIT * float(np.abs(logits).max())
    reason = "" if ok else f"token {token} was generated, {best} is {margin:.3g} above it"
    return PathCheck(len(tokens), "next token", ok, None, reason=reason)
