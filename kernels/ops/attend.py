"""What one decoded token's attention is, whatever the cache: sizes, who reads what, and the mathematics of a score.

The context is divided into `splits` runs of equal length. A launch leaves the softmax-weighted mean of the values of
each run and the base-2 logarithm of its softmax denominator, which is all that is needed to put runs together
(`flash_combine`; Dao et al., "Flash-Decoding", 2023). With one split there is nothing to put together.

The kernels are in `attend_plain` (loops for opts to schedule), `attend_team` (threads that meet in local memory, or one
thread in their place) and `attend_warp` (lanes that meet in shuffles).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from tinygrad import UOp, dtypes
from tinygrad.uop.ops import AxisType, Ops

from db.records import Workload
from kernels.op import DTYPES, OUT, Args, KernelError, Operand, Variable
from kernels.ops import team
from kernels.unpack import float32

START = "start_pos"
"""The Variable that is the position of the decoded token: tinygrad.llm's name for it."""
EMPTY = -1e30
"""The score of no position, and log2 of an empty run's denominator: an infinity would not survive fast-math."""
LOG2E = 1 / math.log(2)
MAX_SPLITS = 256

Read = Callable[[Args, UOp, UOp, UOp], UOp]
"""(args, kv head, position, column) -> float32."""


def extras(w: Workload, names: Mapping[str, int | str]) -> dict[str, int | str]:
    """The workload's extra, with a default for each name. KernelError for a name that is not there, or another type."""
    found = dict(w.extra)
    if unknown := found.keys() - names.keys():
        raise KernelError(f"no kernel of {w.op} has the extra {', '.join(sorted(unknown))}; has {', '.join(names)}")
    for name, value in found.items():
        if type(value) is not type(names[name]):
            raise KernelError(f"extra {name} of {w.op} is a {type(names[name]).__name__}, saw {value!r}")
    return {**names, **found}


def number(w: Workload, name: str, text: int | str, none: float = 0.0) -> float:
    """A float that an extra spells out; "none" is `none`."""
    try:
        value = none if text == "none" else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise KernelError(f"extra {name} of {w.op} is a finite number or none, saw {text!r}")
    return value


@dataclass(frozen=True)
class Attention:
    """heads share kv_heads evenly; q and k have `head_dim` columns, v has `value_dim`.

    window: how many of the last positions are seen, 0 for all. softcap: scores become cap * tanh(score / cap), 0 for
    not. sinks: a logit for each head joins the denominator. scale: of q.k. q(args, head, column) -> float32.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    ctx: int
    max_ctx: int
    splits: int
    scale: float
    q: Callable[[Args, UOp, UOp], UOp]
    k: Read
    v: Read
    window: int = 0
    softcap: float = 0.0
    sinks: bool = False

    @property
    def group(self) -> int:
        """Query heads that share a kv head."""
        return self.heads // self.kv_heads

    @property
    def variable(self) -> Variable:
        return Variable(START, 0, self.max_ctx - 1, self.ctx - 1)

    @property
    def seen(self) -> int:
        """Positions that are attended to at the tuned length."""
        return min(self.ctx, self.window or self.ctx)

    @property
    def first(self) -> UOp:
        """The first position that is attended to."""
        start: UOp = (self.variable.uop - (self.window - 1)).maximum(0)
        return start if self.window else UOp.const(0, dtypes.weakint)

    @property
    def run(self) -> UOp:
        """Positions of a split: the last ones may have fewer, or none."""
        length: UOp = (self.variable.uop + 1 - self.first + (self.splits - 1)) // self.splits
        return length

    def turns(self, step: int, number: int) -> tuple[UOp, tuple[UOp, ...]]:
        """The loop of that number over a split, `step` positions a turn, and the same as what there is to end.

        No loop where a turn is all that there can ever be: one that tinygrad 0.14 knows to run once at most, but does
        not fold, is taken for no scope, and what is used after it may be declared in it (linearize's run_count).
        """
        longest = -(-min(self.max_ctx, self.window or self.max_ctx) // self.splits)
        if longest <= step:
            return UOp.const(0, dtypes.weakint), ()
        turn = UOp.range((self.run + (step - 1)) // step, number, AxisType.REDUCE)
        return turn, (turn,)

    def at(self, split: UOp, i: UOp) -> tuple[UOp, UOp]:
        """The i-th position of a split, and whether there is one; where there is none, another that can be read."""
        position = self.first + split * self.run + i
        return position.minimum(self.variable.uop), (i < self.run) & (position <= self.variable.uop)

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


def chance(score: UOp, top: UOp) -> UOp:
    """2^(score - top), and 0 for the score of no position whatever `top` is."""
    return (score > EMPTY / 2).where((score - top).exp2(), 0.0)


def outputs(w: Workload, a: Attention) -> tuple[Operand, ...]:
    """out [splits, heads, value_dim]: the weighted mean of each run; lse [splits, heads]: log2 of its denominator."""
    return (
        Operand("out", (a.splits, a.heads, a.value_dim), DTYPES[w.out_dtype], OUT),
        Operand("lse", (a.splits, a.heads), dtypes.float32, OUT),
    )


def check(w: Workload, a: Attention) -> Attention:
    """`a`, or KernelError where no kernel computes it."""
    sizes = {"heads": a.heads, "kv_heads": a.kv_heads, "head_dim": a.head_dim, "v_head_dim": a.value_dim}
    for name, size in {**sizes, "ctx": a.ctx, "max_ctx": a.max_ctx, "splits": a.splits}.items():
        if size < 1:
            raise KernelError(f"extra {name} of {w.op} must be 1 or more, saw {size}")
    if w.format != "F16" or w.m != 1 or w.epilogue != "none" or not {w.x_dtype, w.out_dtype} <= {"float32", "float16"}:
        raise KernelError(
            f"{w.op} takes a cache of F16, one token, float32 or float16 and no epilogue; saw {w.format}, {w.m} tokens,"
            f" {w.x_dtype} -> {w.out_dtype}, {w.epilogue}"
        )
    if (w.n, w.k) != (a.heads * a.value_dim, a.head_dim):
        raise KernelError(f"{w.op}: n is heads * v_head_dim and k is head_dim, saw {w.n}, {w.k} with {dict(w.extra)}")
    if a.heads % a.kv_heads or a.ctx > a.max_ctx or a.splits > MAX_SPLITS:
        raise KernelError(
            f"{w.op}: kv_heads divides heads, ctx is at most max_ctx, splits at most {MAX_SPLITS}; saw {dict(w.extra)}"
        )
    return a


def reduce_max(value: UOp, *loops: UOp) -> UOp:
    return team.reduce(Ops.MAX, value, *loops)


def reduce_add(value: UOp, *loops: UOp) -> UOp:
    return team.reduce(Ops.ADD, value, *loops)


def divisors(n: int, most: int) -> tuple[int, ...]:
    """Those of n that are at most `most`, the largest first."""
    return tuple(d for d in range(min(n, most), 0, -1) if n % d == 0)


def added(values: Sequence[UOp]) -> UOp:
    return reduce(add, values)
