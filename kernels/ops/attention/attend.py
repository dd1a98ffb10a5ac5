"""What attention is, whatever the cache: sizes, who reads what, and the mathematics of a score.

Of one decoded token the context is divided into `splits` runs of equal length. A launch leaves the softmax-weighted
mean of the values of each run and the base-2 logarithm of its softmax denominator, which is all that is needed to put
runs together (`flash_combine`; Dao et al., "Flash-Decoding", 2023). With one split there is nothing to put together.

Many tokens, of a prompt, have work enough without that: token i is at start_pos + i and sees nothing after itself. The
queries of neighbouring tokens share what they read of the cache, as those of the heads of a group do.

The kernels are in `attend_plain` (loops for opts to schedule), `attend_team` (threads that meet in local memory, or one
thread in their place) and `attend_warp` (lanes that meet in shuffles).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.kit import workgroup
from kernels.ops.op import DTYPES, OUT, Args, KernelError, Operand, Variable
from kernels.tinygrad.uops import AxisType, Ops

START = "start_pos"
"""The Variable that is the position of the decoded token: tinygrad.llm's name for it."""
EMPTY = -1e30
"""The score of no position, and log2 of an empty run's denominator: an infinity would not survive fast-math."""
LOG2E = 1 / math.log(2)

Read = Callable[[Args, UOp, UOp, UOp], UOp]
"""(args, kv head, position, column) -> float32; of q (args, token, head, column)."""


@dataclass(frozen=True)
class Attention:
    """heads share kv_heads evenly; q and k have `head_dim` columns, v has `value_dim`.

    many: it is of the `tokens` tokens of a prompt, in one split, and leaves no denominators. window: how many of the
    last positions a token sees, 0 for all. softcap: scores become cap * tanh(score / cap), 0 for not. sinks: a logit
    for each head joins the denominator. scale: of q.k.
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
    many: bool = False
    tokens: int = 1

    @property
    def group(self) -> int:
        """Query heads that share a kv head."""
        return self.heads // self.kv_heads

    @property
    def variable(self) -> Variable:
        """The position of the first token."""
        return Variable(START, 0, self.max_ctx - 1, self.ctx - self.tokens)

    @property
    def seen(self) -> int:
        """Positions that the last token attends to at the tuned length."""
        return min(self.ctx, self.window or self.ctx)

    def score(self, dot: UOp, valid: UOp) -> UOp:
        """q.k -> what the softmax takes, in powers of 2."""
        if self.softcap:
            # tanh(x) = 1 - 2 / (1 + e^2x); beyond 15 it is 1 in float32, and e^2x is far from overflow
            x = (dot * (self.scale / self.softcap)).minimum(15.0).maximum(-15.0)
            dot = (1.0 - 2.0 / ((x * (2 * LOG2E)).exp2() + 1.0)) * (self.softcap * LOG2E)
        else:
            dot = dot * (self.scale * LOG2E)
        return valid.where(dot, EMPTY)

    def finish(self, args: Args, split: UOp, head: UOp, top: UOp, total: UOp) -> tuple[UOp, UOp]:
        """From a run's highest score and its sum of 2^(score - top): what its weighted sum of values is multiplied by,
        and the logarithm of its denominator. The sink counts in the first run, which is never empty."""
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
    """What a workgroup is there for: the positions of one split, for `tokens` tokens from `token` on.

    alike: the loop over positions is as long for all tokens. A loop of a CPU must be: in tinygrad 0.14 what ends a loop
    ends those that its length depends on as well (simplify.flatten_range), which is right for a grid alone.
    """

    a: Attention
    split: UOp
    token: UOp
    tokens: int
    alike: bool = False

    def row(self, t: UOp | int) -> UOp:
        """Of the outputs, that of the t-th token."""
        return self.token + t if self.a.many else self.split

    def _first(self, token: UOp) -> UOp:
        """The first position that a token sees."""
        start: UOp = (self.a.variable.uop + token - (self.a.window - 1)).maximum(0)
        return start if self.a.window else UOp.const(0, dtypes.weakint)

    @property
    def _last(self) -> UOp:
        """The position of the last token."""
        return self.a.variable.uop + self.token + (self.tokens - 1)

    @property
    def _length(self) -> UOp:
        """The last splits may have fewer positions, or none."""
        length: UOp = (self._last + 1 - self._first(self.token) + (self.a.splits - 1)) // self.a.splits
        return length

    def turns(self, step: int, number: int) -> tuple[UOp, tuple[UOp, ...]]:
        """The loop of that number over the positions, `step` of them a turn, and the same as what there is to end.

        No loop where a turn is all that there can ever be: one that tinygrad 0.14 knows to run once at most, but does
        not fold, is taken for no scope, and what is used after it may be declared in it (linearize's run_count).
        """
        a = self.a
        longest = -(-min(a.max_ctx, a.window + self.tokens - 1 if a.window else a.max_ctx) // a.splits)
        if longest <= step:
            return UOp.const(0, dtypes.weakint), ()
        length = self._length
        if self.alike and a.many:
            length = UOp.const(0, dtypes.weakint) + longest if a.window else a.variable.uop + a.tokens
        turn = UOp.range((length + (step - 1)) // step, number, AxisType.REDUCE)
        return turn, (turn,)

    def at(self, i: UOp) -> tuple[UOp, UOp]:
        """The i-th position, and whether there is one; where there is none, another that can be read."""
        position = self._first(self.token) + self.split * self._length + i
        return position.minimum(self._last), (i < self._length) & (position <= self._last)

    def seen(self, position: UOp, inside: UOp, t: UOp | int) -> UOp:
        """Whether the t-th token sees a position, which `inside` says there is."""
        if self.tokens == 1:
            return inside
        inside = inside & (position <= self.a.variable.uop + self.token + t)
        return inside & (position >= self._first(self.token + t)) if self.a.window else inside


def chance(score: UOp, top: UOp) -> UOp:
    """2^(score - top), and 0 for the score of no position whatever `top` is."""
    return (score > EMPTY / 2).where((score - top).exp2(), 0.0)


def outputs(w: Workload, a: Attention) -> tuple[Operand, ...]:
    """Of one token out [splits, heads, value_dim], the weighted mean of each run, and lse [splits, heads], log2 of its
    denominator; of many out [tokens, heads, value_dim]."""
    out = Operand("out", (a.tokens if a.many else a.splits, a.heads, a.value_dim), DTYPES[w.out_dtype], OUT)
    return (out,) if a.many else (out, Operand("lse", (a.splits, a.heads), dtypes.float32, OUT))


def check(w: Workload) -> None:
    """KernelError for a dtype that no kernel takes."""
    if not {w.x_dtype, w.out_dtype} <= {"float32", "float16"}:
        raise KernelError(f"{w.op} takes float32 or float16, saw {w.x_dtype} -> {w.out_dtype}")


def reduce_max(value: UOp, *loops: UOp) -> UOp:
    return workgroup.reduce(Ops.MAX, value, *loops)


def reduce_add(value: UOp, *loops: UOp) -> UOp:
    return workgroup.reduce(Ops.ADD, value, *loops)


def divisors(n: int, most: int) -> tuple[int, ...]:
    """Those of n that are at most `most`, the largest first."""
    return tuple(d for d in range(min(n, most), 0, -1) if n % d == 0)


def queries(a: Attention, most: int) -> Iterator[tuple[dict[str, int], int]]:
    """What a workgroup may take at once, the most first: ({"tokens": of many}, heads of a group)."""
    for tokens in divisors(a.tokens, most) if a.many else (1,):
        for heads in divisors(a.group, most // tokens):
            yield ({"tokens": tokens} if a.many else {}), heads


def span(a: Attention, outer: UOp, tokens: int, alike: bool = False) -> Span:
    """That of a workgroup, whose split, or of many tokens whose run of them, is `outer`."""
    none = UOp.const(0, dtypes.weakint)
    return Span(a, none, outer * tokens, tokens, alike) if a.many else Span(a, outer, none, 1)


def added(values: Sequence[UOp]) -> UOp:
    return reduce(add, values)
