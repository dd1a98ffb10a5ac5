"""The work of one slice of attention on a host: see `attend`."""

from __future__ import annotations

import operator
from functools import partial

from tinygrad import UOp

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.attention.spec import Flash
from kernels.ops.host_attention.arithmetic import exp2, tree
from kernels.ops.host_attention.spec import RUN, TILE, HostDecode
from kernels.ops.kit.loops import constant, largest, total
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.kit.workgroup import Store, Workgroup
from kernels.ops.op import DTYPES, START, Args, Params, Variable
from kernels.tinygrad.uops import AxisType

EMPTY = -1e30
"""The score where there is no position, and log2 of the denominator of an empty run."""
LOG2E = 1.4426950408889634


def first_position(w: Workload) -> Variable:
    """The position of the first token."""
    s = Flash.from_workload(w)
    return Variable(START, 0, s.max_ctx - 1, s.ctx - w.m)


class Slice:
    """The work of a slice. Query j is that of token j // heads of a run and head j % heads of a block."""

    def __init__(self, w: Workload, s: Flash, params: Params, args: Args, wg: Workgroup):
        self.w, self.s, self.args, self.wg = w, s, args, wg
        self.decode = isinstance(s, HostDecode)
        self.splits = s.splits if isinstance(s, HostDecode) else 1
        self.heads, self.tokens, self.block = params["heads"], params["tokens"], params["block"]
        self.strip, self.lanes = params["strip"], params["lanes"]
        self.count = self.heads * self.tokens
        self.queries = range(self.count)
        self.start = first_position(w).uop

    def done(self, outer: UOp, run_size: int, run: UOp, block: UOp) -> UOp:
        """outer: the slice's run, or its `run_size` runs of tokens; run: the run of tokens; block: that of heads."""
        s, wg, count, read = self.s, self.wg, self.count, self.wg.read
        self.split = outer if self.decode else constant(0)
        self.token = constant(0) if self.decode else run * self.tokens
        self.first_head = block * self.heads
        self.kv_head = self.first_head // (s.heads // s.kv_heads)
        slice_token = constant(0) if self.decode else outer * (run_size * self.tokens)
        slice_tokens = 1 if self.decode else run_size * self.tokens
        self.last = self.start + slice_token + (slice_tokens - 1)
        first = (self.start + slice_token - (s.window - 1)).maximum(0) // TILE if s.window else constant(0)
        tiles = self.last // TILE - first + 1
        if self.decode:
            unit = RUN // TILE
            each = (tiles + (self.splits * unit - 1)) // (self.splits * unit) * unit
            first, tiles = first + self.split * each, (tiles - self.split * each).minimum(each).maximum(0)
        step = self.block // TILE

        self.q = wg.array(count, s.head_dim)
        self.scores, self.top, self.fade = wg.array(count, self.block), wg.array(count), wg.array(count)
        self.total, self.sums = wg.array(count, TILE), wg.array(count, s.v_head_dim)
        self.dots, self.part = wg.array(count, self.lanes), wg.array(count, self.strip)
        self.peaks, self.next_top = wg.array(TILE), wg.array(1)

        wg.update(count * s.head_dim, self.ask)
        wg.update(count * s.v_head_dim, lambda i: [(self.sums, (i // s.v_head_dim, i % s.v_head_dim), _float(0.0))])
        wg.update(count, lambda j: [(self.top, (j,), _float(EMPTY))])
        wg.update(count * TILE, lambda i: [(self.total, (i // TILE, i % TILE), _float(0.0))])
        turn = wg.allot.range((tiles + (step - 1)) // step)
        wg.now = (*wg.now, turn)
        self.tile = first + turn * step
        self.score()
        self.weigh()
        self.add()
        wg.repeat((turn,))

        wg.update(count, self.finish)
        size = s.v_head_dim
        row = self.split if self.decode else self.token
        wg.update(
            count * size,
            lambda i: [
                (
                    self.args["out"],
                    (row + i // (self.heads * size), self.first_head + i // size % self.heads, i % size),
                    (read(self.sums)[i // size, i % size] * read(self.fade)[i // size]).cast(DTYPES[self.w.out_dtype]),
                )
            ],
        )
        return UOp.group(*wg.now)

    def ask(self, i: UOp) -> list[Store]:
        """The queries. Without a softcap they are scaled, so that scores are logarithms to base 2."""
        s = self.s
        j, column = i // s.head_dim, i % s.head_dim
        head = self.first_head + j % self.heads
        at = (head, column) if self.decode else (self.token + j // self.heads, head, column)
        scale = s.scale / s.softcap if s.softcap else s.scale * LOG2E
        return [(self.q, (j, column), float32(masked_element(self.args["q"], at)) * scale)]

    def score(self) -> None:
        wg, s, read = self.wg, self.s, self.wg.read
        step = wg.allot.loop(self.block // self.lanes, AxisType.LOOP)
        loops = () if step.op is constant(0).op else (step,)
        wg.now = (*wg.now, *loops)
        wg.update(self.lanes, lambda r: [(self.dots, (j, r), _float(0.0)) for j in self.queries])
        column = wg.allot.range(s.head_dim, AxisType.LOOP)
        wg.now = (*wg.now, column)
        tile = self.tile + step * (self.lanes // TILE)
        for more in range(self.lanes // TILE):
            # tiles beyond the last position may be beyond the cache, too
            at = (tile + more).minimum(self.last // TILE)

            def multiply(at: UOp, start: int, r: UOp) -> list[Store]:
                key = float32(masked_element(self.args["k"], (self.kv_head, at, column, r)))
                dots, q = read(self.dots), read(self.q)
                return [(self.dots, (j, start + r), dots[j, start + r] + q[j, column] * key) for j in self.queries]

            wg.update(TILE, partial(multiply, at, more * TILE))
        wg.repeat((column,))

        def put(r: UOp) -> list[Store]:
            position = tile * TILE + r
            return [
                (self.scores, (j, step * self.lanes + r), self.seen(position, j).where(self.capped(dot), EMPTY))
                for j in self.queries
                for dot in [read(self.dots)[j, r]]
            ]

        wg.update(self.lanes, put)
        if loops:
            wg.repeat(loops)

    def seen(self, position: UOp, j: int) -> UOp:
        own = self.start + self.token + j // self.heads
        inside: UOp = position <= own
        return inside & (position > own - self.s.window) if self.s.window else inside

    def capped(self, dot: UOp) -> UOp:
        """cap * tanh(dot), as a logarithm to base 2: tanh x = (1 - e^-2x) / (1 + e^-2x) for x >= 0."""
        if not self.s.softcap:
            return dot
        small = exp2(dot.maximum(-dot) * (-2 * LOG2E))
        size = (1.0 - small) / (1.0 + small) * (self.s.softcap * LOG2E)
        return (dot < 0.0).where(-size, size)

    def weigh(self) -> None:
        """Scores become weights; sums so far are scaled down by `fade` where the maximum rises."""
        wg, read = self.wg, self.wg.read
        j = wg.allot.loop(self.count, AxisType.LOOP)
        loops = () if self.count == 1 else (j,)
        wg.now = (*wg.now, *loops)
        tiles = range(self.block // TILE)
        wg.update(TILE, lambda r: [(self.peaks, (r,), largest([read(self.scores)[j, t * TILE + r] for t in tiles]))])
        peak = tree(UOp.maximum, [read(self.peaks)[r] for r in range(TILE)])
        wg.update(1, lambda i: [(self.next_top, (i,), peak.maximum(read(self.top)[j]))])
        wg.update(1, lambda i: [(self.fade, (j,), exp2(read(self.top)[j] - read(self.next_top)[i]))])
        wg.update(1, lambda i: [(self.top, (j,), read(self.next_top)[i])])

        def chance(r: UOp) -> UOp:
            score: UOp = read(self.scores)[j, r]
            return (score > EMPTY / 2).where(exp2((score - read(self.top)[j]).minimum(0.0)), 0.0)

        wg.update(self.block, lambda r: [(self.scores, (j, r), chance(r))])

        def add(r: UOp) -> UOp:
            return read(self.total)[j, r] * read(self.fade)[j] + total(
                [read(self.scores)[j, t * TILE + r] for t in tiles]
            )

        wg.update(TILE, lambda r: [(self.total, (j, r), add(r))])
        if loops:
            wg.repeat(loops)

    def add(self) -> None:
        wg, s, read, strip = self.wg, self.s, self.wg.read, self.strip
        at = wg.allot.loop(s.v_head_dim // strip, AxisType.LOOP)
        loops = () if s.v_head_dim == strip else (at,)
        wg.now = (*wg.now, *loops)
        wg.update(
            strip,
            lambda c: [
                (self.part, (j, c), read(self.sums)[j, at * strip + c] * read(self.fade)[j]) for j in self.queries
            ],
        )
        i = wg.allot.range(self.block, AxisType.LOOP)
        wg.now = (*wg.now, i)
        position = (self.tile * TILE + i).minimum(self.last)  # beyond it weights are 0, and values may be anything

        def multiply(c: UOp) -> list[Store]:
            value = float32(masked_element(self.args["v"], (self.kv_head, position, at * strip + c)))
            return [(self.part, (j, c), read(self.part)[j, c] + read(self.scores)[j, i] * value) for j in self.queries]

        wg.update(strip, multiply)
        wg.repeat((i,))
        wg.update(strip, lambda c: [(self.sums, (j, at * strip + c), read(self.part)[j, c]) for j in self.queries])
        if loops:
            wg.repeat(loops)

    def finish(self, j: UOp) -> list[Store]:
        """`fade` becomes what the sums of query j are multiplied by. A sink counts in the first run."""
        read, head = self.wg.read, self.first_head + j % self.heads
        denominator, top = tree(operator.add, [read(self.total)[j, r] for r in range(TILE)]), read(self.top)[j]
        scale = _float(1.0)
        if self.s.sinks:
            sink = (self.split < 1).where(float32(self.args["sinks"][head]) * LOG2E, EMPTY)
            highest = top.maximum(sink)
            scale = exp2(top - highest)
            denominator, top = denominator * scale + exp2(sink - highest), highest
        any_ = denominator > 0.0
        safe = any_.where(denominator, 1.0)
        found: list[Store] = [(self.fade, (j,), any_.where(scale / safe, 0.0))]
        if self.decode:
            found.append((self.args["lse"], (self.split, head), any_.where(top + safe.log2(), EMPTY)))
        return found


def _float(value: float) -> UOp:
    return UOp.const(value, DTYPES["float32"])
