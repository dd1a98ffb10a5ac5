"""Stands for `kernels.llm.program.Program`: it remembers what was read where, and its next token is told by all of it.

At each position it keeps a number that depends on all tokens up to there, as a cache of keys and values does: a token
that was read after a wrong one, or a position that was not read, shows in every token that follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from tinygrad import Tensor, UOp, dtypes

from kernels.devices import describe_target
from kernels.llm.prompt import CHUNKS
from kernels.ops.op import START
from kernels.tinygrad.capture import Bound
from kernels.tinygrad.upload import upload, zeros

VOCABULARY = 211
_PRIME = 10007


def next_token(tokens: Sequence[int]) -> int:
    """The token that follows `tokens`."""
    kept = np.cumsum([(token + 1) * (31 * at + 7) for at, token in enumerate(tokens)]) % _PRIME
    return int((kept * (np.arange(len(tokens)) + 3)).sum() % VOCABULARY)


def following(tokens: Sequence[int], count: int) -> list[int]:
    found = list(tokens)
    for _ in range(count):
        found.append(next_token(found))
    return found[len(tokens) :]


def logits_after(tokens: Sequence[int]) -> np.ndarray:
    """[VOCABULARY], of which that of the next token is the largest."""
    return -((np.arange(VOCABULARY) - next_token(tokens)) % VOCABULARY).astype(np.float32)


class RecallingProgram:
    """context: at least 32 positions. compiled: the numbers of tokens that were asked to be compiled. lost_at: a
    position where the device fails."""

    def __init__(self, context: int, device: str) -> None:
        self.context, self.device, self.target = context, device, describe_target(device)
        self.decode = SimpleNamespace(launches=())
        self.compiled: set[int] = set()
        self.lost_at: int | None = None
        self._kept = zeros((context,), dtypes.int32, device)
        self._at = upload(np.arange(context, dtype=np.int32), device)
        self._words = upload(np.arange(VOCABULARY, dtype=np.int32), device)
        self._below = {m: upload(np.tri(m, dtype=np.int32), device) for m in (1, *CHUNKS)}
        Tensor.realize(self._kept, self._at, self._words, *self._below.values())

    def position(self, at: int) -> UOp:
        return self.bound(at).bind()

    def bound(self, at: int) -> Bound:
        if at == self.lost_at:
            raise RuntimeError("the device is gone")
        return Bound(UOp.variable(START, 0, self.context - 1), at)

    def compile(self, sizes: set[int]) -> None:
        self.compiled |= sizes

    def run(self, ids: Tensor, start_pos: UOp, result: str) -> tuple[Tensor]:
        m = int(ids.shape[0])
        first, number = self._at[start_pos : start_pos + 1], self._at[:m]  # [1], [m]
        own = (ids + 1) * ((number + first) * 31 + 7)  # [m]
        before = (self._at == first - 1).where(self._kept, 0).sum()
        sums = ((self._below[m] * own).sum(1) + before) % _PRIME  # [m]
        place = (self._at - first).reshape(-1, 1)  # [context, 1]
        kept = (place == number).where(sums, 0).sum(1) + ((place < 0) + (place >= m)).reshape(-1).where(self._kept, 0)
        Tensor.realize(self._kept.assign(kept))
        if result == "residual":
            return (self._kept.contiguous(),)
        said = (self._at <= first).where(self._kept * (self._at + 3), 0).sum() % VOCABULARY
        logits = -((self._words - said + VOCABULARY) % VOCABULARY).cast(dtypes.float32)
        return (said.cast(dtypes.int32).reshape(1, 1) if result == "next" else logits.reshape(1, -1),)
