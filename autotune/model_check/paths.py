"""Reads one prompt by several paths: at once, in pieces, and token by token. All must give the same logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotune.model_check.parting import LIMIT, Parting, Reading, TokenByToken, difference
from kernels.llm.model import Transformer
from kernels.llm.prompt import CHUNKS
from kernels.tinygrad.upload import overwrite

# lengths just below and above the sizes of chunks and tiles, and of a few tiles
LENGTHS = (1, 2, 16, 17, 18, 31, 33, 70, 513)
CAPTURED_LIMIT = 1e-6  # equal launches give equal results, except for the last few, which are tinygrad's own kernels
STALE = 3.0  # caches are filled with this before a path writes them; finite, because attention may multiply it by 0

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PathCheck:
    """The comparison of one path with reading the same prompt of `length` tokens token by token.

    path         "at once"; "in pieces" (the first third, then the rest); "next token" (the greedy choice of the
                 captured step); "token by token" if the logits of that path are not finite
    difference   relative difference of the logits; None for "next token"
    parted       if the difference is above LIMIT, the comparison of both paths with the same decisions. The check then
                 passes only if no value differs and the logits are those of the same launches run one by one
    """

    length: int
    path: str
    ok: bool
    difference: float | None = None
    parted: Parting | None = None
    reason: str = ""


def check_paths(model: Transformer, tokens: Sequence[int], lengths: Sequence[int]) -> Iterator[PathCheck]:
    """Checks prompts of each length, which begin with the first of `tokens`. Lengths beyond the context are skipped."""
    fitting = sorted({length for length in lengths if length <= model.max_context})
    expected: dict[int, Logits] = {}
    _forget(model)
    for length in fitting:
        expected[length] = model.logits(list(tokens[:length]), at_once=False)
    if chunk := next((length for length in fitting if length > CHUNKS[-1] // 2 + 1), 0):
        _forget(model)
        model.logits(list(tokens[:chunk]))  # after a chunk is captured, shorter prompts are also read at once
    single = TokenByToken(model, tokens)
    for length in fitting:
        yield from _check(model, list(tokens[:length]), expected[length], single)


def _forget(model: Transformer) -> None:
    """Overwrites the caches, so that a path cannot use values that another path left in them."""
    model.forget()
    for label, value in model.program.decode.plan.inputs.items():
        if value.persistent:
            cache = model.program.state[label]
            overwrite(cache, np.full(cache.shape, STALE, np.float16))


def _check(model: Transformer, tokens: list[int], expected: Logits, single: TokenByToken) -> Iterator[PathCheck]:
    if not np.isfinite(expected).all():
        yield PathCheck(len(tokens), "token by token", False, reason="the logits are not finite")
        return
    yield _compared(model, tokens, "at once", [len(tokens)], expected, single)
    if len(tokens) > 2:
        yield _compared(model, tokens, "in pieces", [len(tokens) // 3, len(tokens)], expected, single)
    yield _next(model, tokens)


def _compared(
    model: Transformer, tokens: list[int], path: str, ends: Sequence[int], expected: Logits, single: TokenByToken
) -> PathCheck:
    """Compares one path. ends: the ends of the pieces in which the prompt is read."""
    found, readings = _read(model, tokens, ends)
    off = difference(found, expected)
    if off <= LIMIT:
        return PathCheck(len(tokens), path, True, off)
    parted = single.parting(readings)
    reason = parted.first
    for which, captured, launched in ((path, found, parted.logits), ("token by token", expected, parted.single)):
        if not reason and (unlike := difference(captured, launched)) > CAPTURED_LIMIT:
            reason = f"{which}: the captured passes differ by {unlike:.1e} from the same launches run one by one"
    return PathCheck(len(tokens), path, not reason, off, parted, reason)


def _read(model: Transformer, tokens: list[int], ends: Sequence[int]) -> tuple[Logits, list[Reading]]:
    """The logits after a prompt that is read in pieces, and the passes that read it."""
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
    """Checks that `generate` continues with the most likely token."""
    logits = model.logits(tokens)
    token = next(model.generate(list(tokens)))
    best = int(logits.argmax())
    margin = float(logits[best] - logits[token])
    ok = margin <= LIMIT * float(np.abs(logits).max())
    reason = "" if ok else f"token {token} was generated, but the logit of token {best} is larger by {margin:.3g}"
    return PathCheck(len(tokens), "next token", ok, None, reason=reason)
