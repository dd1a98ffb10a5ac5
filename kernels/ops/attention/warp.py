"""Attention by warps whose lanes meet in shuffles; the warps of a workgroup meet once, at the end.

A group of `width` lanes shares a position. Each lane holds some columns of q and of the sums in registers and reads the
same columns of K and V; shuffles add up the dot products. Every group keeps a softmax of its own over the positions
that it has seen (Milakov & Gimelshein, 2018). At the end the groups of a warp are put together by shuffles, and the
warps of a workgroup through local memory. The parameters:
    heads   query heads that a warp takes at once, sharing its reads of K and V
    tokens  in a prompt, the tokens whose heads it takes
    width   lanes that share a position
    rows    positions that a group of lanes takes at a time
    warps   warps of a workgroup, which share out the positions of a split
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import add

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.backends import Needs
from kernels.ops.attention import attend
from kernels.ops.attention.attend import EMPTY, Attention, Span, chance, queries
from kernels.ops.attention.workgroup import LOCAL_NBYTES
from kernels.ops.kit.allot import Allotter
from kernels.ops.kit.loops import largest, total
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.kit.warp import BITS, WARP, across
from kernels.ops.op import DTYPES, Args, Params
from kernels.tinygrad.uops import AxisType

COLUMNS = 8  # columns of 16 bytes, which a lane reads at a time
_REGISTERS = 160


def warp_params(a: Attention) -> tuple[Params, ...]:
    """The parameters whose queries and sums fit in registers and local memory."""
    return tuple(
        {"heads": heads, "width": width, "rows": rows, "warps": warps} | more
        for more, heads in queries(a, 8)
        for width in (16, 8, 32, 4)
        for warps in (4, 8, 2, 1)
        for rows in (2, 1, 4)
        if (count := heads * more.get("tokens", 1))
        if count * COLUMNS * (_strips(a.head_dim, width) + _strips(a.value_dim, width)) <= _REGISTERS
        if rows * count * _strips(a.head_dim, width) <= 16
        if _nbytes(a, count, warps) <= LOCAL_NBYTES
    )


def _nbytes(a: Attention, count: int, warps: int) -> int:
    """Bytes of local memory for `count` queries."""
    return 4 * warps * count * (a.value_dim + 2)


def warp_needs(a: Attention, params: Params) -> Needs:
    count = params["heads"] * params.get("tokens", 1)
    return Needs(WARP * params["warps"], _nbytes(a, count, params["warps"]), WARP)


def _strips(columns: int, width: int) -> int:
    """Number of strips, of COLUMNS columns each, that a lane has."""
    return -(-columns // (COLUMNS * width))


class _Registers:
    """Float32 registers of a thread, by name."""

    def __init__(self, allot: Allotter, names: Sequence[tuple[object, ...]]) -> None:
        self._array = allot.registers(len(names))
        self._places = {name: i for i, name in enumerate(names)}

    def store(self, now: Sequence[UOp], value: Callable[..., UOp]) -> UOp:
        """The store of value(*name) in each register, after `now`."""
        here = self._array.after(*now)
        return UOp.group(*[here[i].store(value(*name)) for name, i in self._places.items()])

    def load(self, now: Sequence[UOp]) -> Callable[..., UOp]:
        """load(*name): what a register holds after `now`."""
        here = self._array.after(*now)
        return lambda *name: here[self._places[name]].load()


def warp(w: Workload, a: Attention, params: Params, args: Args, device: str) -> UOp:
    """The kernel: a workgroup of `warps` warps for each (split, block of heads), or (run of tokens, block of heads)."""
    warps = _Warps(w, a, args, device, **params)
    query, sums, ready = warps.start()
    done = warps.sweep(query, sums, ready)
    return warps.put(warps.meet(sums.load((done,))))


@dataclass(frozen=True)
class _Warps:
    """The warps of a workgroup. The methods are in the order of the work."""

    w: Workload
    a: Attention
    args: Args
    device: str
    heads: int
    width: int
    rows: int
    warps: int
    tokens: int = 1
    allot: Allotter = field(default_factory=Allotter, init=False)

    @property
    def queries(self) -> range:
        """Numbers of the queries: those of the first token's heads, then of the second's, and so on."""
        return range(self.tokens * self.heads)

    @cached_property
    def outer(self) -> UOp:
        """The split, or in a prompt the run of tokens."""
        return UOp.range(self.a.tokens // self.tokens if self.a.prefill else self.a.splits, 0, AxisType.GLOBAL)

    @cached_property
    def span(self) -> Span:
        return attend.span(self.a, self.outer, self.tokens)

    @cached_property
    def block(self) -> UOp:
        """The block of heads."""
        return UOp.range(self.a.heads // self.heads, 1, AxisType.GLOBAL)

    @cached_property
    def warp(self) -> UOp:
        return UOp.range(self.warps, 2, AxisType.LOCAL)

    @cached_property
    def lane(self) -> UOp:
        return UOp.range(WARP, -1, AxisType.WARP)

    @property
    def threads(self) -> tuple[UOp, ...]:
        return self.outer, self.block, self.warp, self.lane

    @property
    def first(self) -> UOp:
        """The first head of the workgroup."""
        return self.block * self.heads

    def _column(self, strip: int, i: int) -> UOp:
        """The lane's i-th column of a strip."""
        return (strip * self.width + self.lane % self.width) * COLUMNS + i

    def _own(self, columns: int) -> list[tuple[int, int]]:
        """(strip, i) of a lane's columns."""
        return [(strip, i) for strip in range(_strips(columns, self.width)) for i in range(COLUMNS)]

    def _read(self, strip: int, i: int, columns: int) -> UOp:
        """The column to read. Columns beyond the last are masked, so that the lane reads zeros."""
        at = self._column(strip, i)
        return at if int(at.vmax) < columns else at.valid(at < columns)

    def _exchange(self, value: UOp, join: Callable[[UOp, UOp], UOp], near: bool) -> UOp:
        """`value` joined over the lanes of a group (near), or over the lanes at the same place in all groups. All of
        these lanes get the same result, to the bit."""
        return across(value, join, self.device, [bit for bit in BITS if (bit < self.width) == near])

    def start(self) -> tuple[_Registers, _Registers, UOp]:
        """Registers that hold q, registers for the sums, and what makes them ready."""
        a = self.a
        query = _Registers(self.allot, [(j, *e) for j in self.queries for e in self._own(a.head_dim)])
        state = [(name, j) for name in ("top", "total") for j in self.queries]
        sums = _Registers(self.allot, [*state, *((j, *e) for j in self.queries for e in self._own(a.value_dim))])

        def q(j: int, strip: int, i: int) -> UOp:
            t, h = divmod(j, self.heads)
            return a.q(self.args, self.span.token + t, self.first + h, self._read(strip, i, a.head_dim))

        def nothing(name: object, *_: int) -> UOp:
            return UOp.const(EMPTY if name == "top" else 0.0, dtypes.float32)

        return query, sums, UOp.group(query.store(self.threads, q), sums.store(self.threads, nothing))

    def sweep(self, query: _Registers, sums: _Registers, ready: UOp) -> UOp:
        """Goes through all positions of the split, `rows` of them a turn for each group of lanes."""
        a, args, kv_head, span = self.a, self.args, self.first // self.a.group, self.span
        groups = WARP // self.width
        step = self.warps * self.rows * groups
        turn, loop = span.turns(step, self.allot.number())
        q, old = query.load((ready, *loop)), sums.load((ready, *loop))
        own = self._own(a.value_dim)
        scores: list[list[UOp]] = []
        values: list[dict[tuple[int, int], UOp]] = []
        for row in range(self.rows):
            i = ((turn * self.warps + self.warp) * self.rows + row) * groups + self.lane // self.width
            position, inside = span.at(i)
            key = {e: a.k(args, kv_head, position, self._read(*e, a.head_dim)) for e in self._own(a.head_dim)}
            dots = [total([q(j, *e) * k for e, k in key.items()]) for j in self.queries]
            seen = [span.seen(position, inside, t) for t in range(self.tokens)]
            sums_of = [self._exchange(dot, add, near=True) for dot in dots]
            scores.append([a.score(dot, seen[j // self.heads]) for j, dot in enumerate(sums_of)])
            values.append({e: a.v(args, kv_head, position, self._read(*e, a.value_dim)) for e in own})
        tops = [largest([old("top", j), *(row[j] for row in scores)]) for j in self.queries]
        fades = [(old("top", j) - top).exp2() for j, top in enumerate(tops)]
        weights = [[chance(score, top) for score, top in zip(row, tops, strict=True)] for row in scores]

        def new_state(name: str, j: int) -> UOp:
            return tops[j] if name == "top" else total([old(name, j) * fades[j], *(row[j] for row in weights)])

        def new_sum(j: int, strip: int, i: int) -> UOp:
            more = [row[j] * value[strip, i] for row, value in zip(weights, values, strict=True)]
            return total([old(j, strip, i) * fades[j], *more])

        now = (ready, *loop)
        return sums.store(now, lambda *n: new_state(*n) if isinstance(n[0], str) else new_sum(*n)).end(*loop)

    def meet(self, found: Callable[..., UOp]) -> UOp:
        """Puts the groups of each warp together in local memory: [warps, queries, value_dim + 2], where the last two
        are the highest score and the denominator."""
        dim = self.a.value_dim
        shared = self.allot.local(self.warps, len(self.queries), dim + 2)
        stores = []
        for j in self.queries:
            top = self._exchange(found("top", j), UOp.maximum, near=False)
            fade = (found("top", j) - top).exp2()
            for e in self._own(dim):
                at = self._column(*e)
                place = masked_element(shared, (self.warp, j, at), (self.lane < self.width) & (at < dim))
                stores.append(place.store(self._exchange(found(j, *e) * fade, add, near=False)))
            # all lanes have the same highest score and denominator, so that each may store them
            stores.append(shared[self.warp, j, dim].store(top))
            denominator = self._exchange(found("total", j) * fade, add, near=False)
            stores.append(shared[self.warp, j, dim + 1].store(denominator))
        return shared.after(UOp.group(*stores))

    def put(self, shared: UOp) -> UOp:
        """Puts the warps together and stores the outputs, one for each thread and turn."""
        a, dim, size, count = self.a, self.a.value_dim, self.warps * WARP, len(self.queries) * self.a.value_dim
        turn = self.allot.range(-(-count // size), AxisType.LOOP)
        at = turn * size + self.warp * WARP + self.lane
        real = at < count
        at = at if int(at.vmax) < count else at.minimum(count - 1)
        j, column = at // dim, at % dim
        tops = [shared[i, j, dim] for i in range(self.warps)]
        top = largest(tops)
        fades = [(t - top).exp2() for t in tops]
        denominator = total([shared[i, j, dim + 1] * fade for i, fade in enumerate(fades)])
        row, head = self.span.row(j // self.heads), self.first + j % self.heads
        scale, lse = a.finish(self.args, self.span.split, head, top, denominator)
        mean = total([shared[i, j, column] * fade for i, fade in enumerate(fades)]) * scale
        out = masked_element(self.args["out"], (row, head, column), real)
        stores = [out.store(mean.cast(DTYPES[self.w.out_dtype]))]
        if not a.prefill:  # threads that have no output, or another column, store the same lse
            stores.append(self.args["lse"][row, head].store(lse))
        return UOp.group(*stores).end(turn).end(*self.threads)
