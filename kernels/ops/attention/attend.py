"""Attention over any cache: its sizes, what it reads, and the mathematics of a score.

For one decoded token the context is divided into `splits` runs of equal length. A launch writes two results for each
run: the softmax-weighted mean of its values, and the base-2 logarithm of its softmax denominator. `flash_combine` puts
the runs together from these (Dao et al., "Flash-Decoding", 2023). With one split the mean is the result.

The tokens of a prompt are enough work without splits. Token i is at position start_pos + i and sees no position after
its own. The queries of neighbouring tokens share what they read of the cache, as the heads of a group do.

The kernels are in `loops` (for opts to schedule), `workgroup` (threads that meet in local memory, or a single thread in
their place) and `warp` (lanes that meet in shuffles).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.kit.loops import constant
from kernels.ops.op import DTYPES, OUT, START, Args, Operand, Variable
from kernels.tinygrad.uops import AxisType

EMPTY = -1e30
"""The score where there is no position, and log2 of the denominator of an empty run. It is finite, since fast-math does
not preserve infinities."""
LOG2E = 1 / math.log(2)

Read = Callable[[Args, UOp, UOp, UOp], UOp]
"""(args, kv head, position, column) -> float32; for q (args, token, head, column) -> float32."""


@dataclass(frozen=True)
class Attention:
    """`heads` query heads share `kv_heads` heads of keys and values evenly. q and k have `head_dim` columns, v has
    `value_dim`.

    prefill: whether it is for the `tokens` tokens of a prompt: then there is one split, and no denominator is written.
    window: how many of the last positions a token sees, 0 for all. softcap: scores become cap * tanh(score / cap), 0
    for no cap. sinks: a logit for each head is added to the denominator. scale: what q.k is multiplied by.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    ctx: int
    max_ctx: int
    splits: int
    scale: float
    q: Read
    k: Read
    v: Read
    window: int = 0
    softcap: float = 0.0
    sinks: bool = False
    prefill: bool = False
    tokens: int = 1

    @property
    def group(self) -> int:
        """Number of query heads that share a kv head."""
        return self.heads // self.kv_heads

    @property
    def variable(self) -> Variable:
        """The position of the first token."""
        return Variable(START, 0, self.max_ctx - 1, self.ctx - self.tokens)

    @property
    def seen(self) -> int:
        """Number of positions that the last token attends to, at the context length that is tuned."""
        return min(self.ctx, self.window or self.ctx)

    def score(self, dot: UOp, valid: UOp) -> UOp:
        """The dot product of q and k -> the logarithm to base 2 of what the softmax sums."""
        if self.softcap:
            # tanh(x) = 1 - 2 / (1 + e^2x); beyond 15 it is 1 in float32, and e^2x is far from overflow
            x = (dot * (self.scale / self.softcap)).minimum(15.0).maximum(-15.0)
            dot = (1.0 - 2.0 / ((x * (2 * LOG2E)).exp2() + 1.0)) * (self.softcap * LOG2E)
        else:
            dot = dot * (self.scale * LOG2E)
        return valid.where(dot, EMPTY)

    def finish(self, args: Args, split: UOp, head: UOp, top: UOp, total: UOp) -> tuple[UOp, UOp]:
        """(scale, lse) of a run, from its highest score `top` and the `total` of 2^(score - top): its weighted sum of
        values is multiplied by `scale`, and `lse` is the logarithm to base 2 of its denominator. A sink counts in the
        first run, which is never empty."""
        if self.sinks:
            sink = (split < 1).where(float32(args["sinks"][head]) * LOG2E, EMPTY)
            highest = top.maximum(sink)
            fade = (top - highest).exp2()
            total, top = total * fade + (sink - highest).exp2(), highest
        else:
            fade = UOp.const(1.0, dtypes.float32)
        any_ = total > 0.0
        safe = any_.where(total, 1.0)
        return any_.where(fade / safe, 0.0), any_.where(top + safe.log2(), EMPTY)


@dataclass(frozen=True)
class Span:
    """What one workgroup attends to: the positions of one split, for `tokens` tokens from `token` on.

    alike: the loop over positions has the same length for all tokens. On a CPU it must: in tinygrad 0.14 the end of a
    loop also ends the loops that its length depends on (simplify.flatten_range), which is right for a grid only.
    """

    a: Attention
    split: UOp
    token: UOp
    tokens: int
    alike: bool = False

    def row(self, t: UOp | int) -> UOp:
        """The row of the outputs for the t-th token."""
        return self.token + t if self.a.prefill else self.split

    def _first(self, token: UOp) -> UOp:
        """The first position that a token sees."""
        start: UOp = (self.a.variable.uop + token - (self.a.window - 1)).maximum(0)
        return start if self.a.window else constant(0)

    @property
    def _last(self) -> UOp:
        """The position of the last token."""
        return self.a.variable.uop + self.token + (self.tokens - 1)

    @property
    def _length(self) -> UOp:
        """Positions of a split. The last splits may have fewer, or none."""
        length: UOp = (self._last + 1 - self._first(self.token) + (self.a.splits - 1)) // self.a.splits
        return length

    def turns(self, step: int, number: int) -> tuple[UOp, tuple[UOp, ...]]:
        """The loop with that number over the positions, `step` of them a turn, and the loops that must be ended.

        Where one turn is always enough there is no loop. tinygrad 0.14 does not fold a loop that it knows to run at
        most once, yet takes it for no scope: values used after it may then be declared in it (linearize's run_count).
        """
        a = self.a
        longest = -(-min(a.max_ctx, a.window + self.tokens - 1 if a.window else a.max_ctx) // a.splits)
        if longest <= step:
            return constant(0), ()
        length = self._length
        if self.alike and a.prefill:
            length = constant(0) + longest if a.window else a.variable.uop + a.tokens
        turn = UOp.range((length + (step - 1)) // step, number, AxisType.REDUCE)
        return turn, (turn,)

    def at(self, i: UOp) -> tuple[UOp, UOp]:
        """The i-th position, and whether there is one. Where there is none the position is another one that can be
        read."""
        position = self._first(self.token) + self.split * self._length + i
        return position.minimum(self._last), (i < self._length) & (position <= self._last)

    def seen(self, position: UOp, inside: UOp, t: UOp | int) -> UOp:
        """Whether the t-th token sees a position. inside: whether there is that position (see `at`)."""
        if self.tokens == 1:
            return inside
        inside = inside & (position <= self.a.variable.uop + self.token + t)
        return inside & (position >= self._first(self.token + t)) if self.a.window else inside


def chance(score: UOp, top: UOp) -> UOp:
    """2^(score - top). It is 0 for the score EMPTY, whatever `top` is."""
    return (score > EMPTY / 2).where((score - top).exp2(), 0.0)


def outputs(w: Workload, a: Attention) -> tuple[Operand, ...]:
    """For one token: out [splits, heads, value_dim], the weighted mean of each run, and lse [splits, heads], log2 of
    its denominator. For a prompt: out [tokens, heads, value_dim]."""
    out = Operand("out", (a.tokens if a.prefill else a.splits, a.heads, a.value_dim), DTYPES[w.out_dtype], OUT)
    return (out,) if a.prefill else (out, Operand("lse", (a.splits, a.heads), dtypes.float32, OUT))


def divisors(n: int, most: int) -> tuple[int, ...]:
    """The divisors of n that are at most `most`, the largest first."""
    return tuple(d for d in range(min(n, most), 0, -1) if n % d == 0)


def queries(a: Attention, most: int) -> Iterator[tuple[dict[str, int], int]]:
    """The queries that a workgroup can take at once, the most first: ({"tokens": count} of a prompt, else {}, and heads
    of a group)."""
    for tokens in divisors(a.tokens, most) if a.prefill else (1,):
        for heads in divisors(a.group, most // tokens):
            yield ({"tokens": tokens} if a.prefill else {}), heads


def span(a: Attention, outer: UOp, tokens: int, alike: bool = False) -> Span:
    """The span of a workgroup. outer: its split, or in a prompt its run of tokens."""
    none = constant(0)
    return Span(a, none, outer * tokens, tokens, alike) if a.prefill else Span(a, outer, none, 1)
