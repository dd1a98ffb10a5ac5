"""Attention by warps whose lanes meet in shuffles; the warps of a workgroup meet once, at the end.

A group of `width` lanes shares a position: each holds some columns of q and of the sums in registers, reads those of K
and V, and a shuffle adds up the dot products. Every group keeps a softmax of its own over the positions that it has
seen (Milakov & Gimelshein, 2018); in the end a warp's groups are put together by shuffles and its warps through local
memory. Nothing is fixed but the integer parameters:
    heads   query heads that a warp takes at once, sharing its reads of K and V
    tokens  tokens of which it takes them
    width   lanes that share a position
    rows    positions that a group of lanes takes at a time
    warps   warps of a workgroup, which share out the positions of a split
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.backends import Needs
from kernels.ops.attention import attend
from kernels.ops.attention.attend import EMPTY, Attention, Span, added, chance, queries
from kernels.ops.attention.workgroup import LOCAL_NBYTES
from kernels.ops.kit.masked_element import element
from kernels.ops.kit.warp_sum import WARP, other_lane
from kernels.ops.op import DTYPES, Args, Params
from kernels.tinygrad.uops import AddrSpace, AxisType

COLUMNS = 8  # columns of 16 bytes, which a lane reads at a time
_REGISTERS = 160
_SLOT = 300  # tinygrad numbers its own arrays from 0


def warp_params(a: Attention) -> tuple[Params, ...]:
    """Those that registers and local memory hold."""
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
    """Of local memory for `count` queries."""
    return 4 * warps * count * (a.value_dim + 2)


def warp_needs(a: Attention, params: Params) -> Needs:
    count = params["heads"] * params.get("tokens", 1)
    return Needs(WARP * params["warps"], _nbytes(a, count, params["warps"]), WARP)


def _strips(columns: int, width: int) -> int:
    """Runs of COLUMNS columns that a lane has."""
    return -(-columns // (COLUMNS * width))


class _Registers:
    """Float32 registers of a thread, by name."""

    def __init__(self, slot: int, names: Sequence[tuple[object, ...]]) -> None:
        self._array = UOp.placeholder((len(names),), dtypes.float32, slot=slot, addrspace=AddrSpace.REG)
        self._places = {name: i for i, name in enumerate(names)}

    def store(self, now: Sequence[UOp], value: Callable[..., UOp]) -> UOp:
        """value(*name) in each register, once `now` has happened."""
        here = self._array.after(*now)
        return UOp.group(*[here[i].store(value(*name)) for name, i in self._places.items()])

    def load(self, now: Sequence[UOp]) -> Callable[..., UOp]:
        """load(*name): what a register holds once `now` has happened."""
        here = self._array.after(*now)
        return lambda *name: here[self._places[name]].load()


def warp(w: Workload, a: Attention, params: Params, args: Args, device: str) -> UOp:
    """Workgroups of `warps` warps for each (split, heads), or (tokens, heads)."""
    team = _Warps(w, a, args, device, **params)
    query, sums, ready = team.start()
    done = team.sweep(query, sums, ready)
    return team.put(team.meet(sums.load((done,))))


@dataclass(frozen=True)
class _Warps:
    """The warps of a workgroup, in the order of what they do."""

    w: Workload
    a: Attention
    args: Args
    device: str
    heads: int
    width: int
    rows: int
    warps: int
    tokens: int = 1

    @property
    def queries(self) -> range:
        """Of `tokens` tokens, the heads of each side by side."""
        return range(self.tokens * self.heads)

    @cached_property
    def outer(self) -> UOp:
        """The split, or of many tokens which of them."""
        return UOp.range(self.a.tokens // self.tokens if self.a.many else self.a.splits, 0, AxisType.GLOBAL)

    @cached_property
    def span(self) -> Span:
        return attend.span(self.a, self.outer, self.tokens)

    @cached_property
    def block(self) -> UOp:
        """Of the heads."""
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
        """A column to read; none where a lane's are past the last, so that it reads zeros."""
        at = self._column(strip, i)
        return at if int(at.vmax) < columns else at.valid(at < columns)

    def _exchange(self, value: UOp, join: Callable[[UOp, UOp], UOp], near: bool) -> UOp:
        """`value` joined with those of the lanes of the same group (near), or of the same place in the other groups;
        all of them then have the same, to the bit."""
        for bit in (16, 8, 4, 2, 1):
            if (bit < self.width) == near:
                value = join(value, other_lane(value, bit, self.device))
        return value

    def start(self) -> tuple[_Registers, _Registers, UOp]:
        """Registers with q, registers for the sums, and when they are ready."""
        a = self.a
        query = _Registers(_SLOT, [(j, *e) for j in self.queries for e in self._own(a.head_dim)])
        state = [(name, j) for name in ("top", "total") for j in self.queries]
        sums = _Registers(_SLOT + 1, [*state, *((j, *e) for j in self.queries for e in self._own(a.value_dim))])

        def q(j: int, strip: int, i: int) -> UOp:
            t, h = divmod(j, self.heads)
            return a.q(self.args, self.span.token + t, self.first + h, self._read(strip, i, a.head_dim))

        def nothing(name: object, *_: int) -> UOp:
            return UOp.const(EMPTY if name == "top" else 0.0, dtypes.float32)

        return query, sums, UOp.group(query.store(self.threads, q), sums.store(self.threads, nothing))

    def sweep(self, query: _Registers, sums: _Registers, ready: UOp) -> UOp:
        """All positions of the split, `rows` of them a turn for each group of lanes."""
        a, args, kv_head, span = self.a, self.args, self.first // self.a.group, self.span
        groups = WARP // self.width
        step = self.warps * self.rows * groups
        turn, loop = span.turns(step, 3)
        q, old = query.load((ready, *loop)), sums.load((ready, *loop))
        own = self._own(a.value_dim)
        scores: list[list[UOp]] = []
        values: list[dict[tuple[int, int], UOp]] = []
        for row in range(self.rows):
            i = ((turn * self.warps + self.warp) * self.rows + row) * groups + self.lane // self.width
            position, inside = span.at(i)
            key = {e: a.k(args, kv_head, position, self._read(*e, a.head_dim)) for e in self._own(a.head_dim)}
            dots = [added([q(j, *e) * k for e, k in key.items()]) for j in self.queries]
            seen = [span.seen(position, inside, t) for t in range(self.tokens)]
            sums_of = [self._exchange(dot, add, near=True) for dot in dots]
            scores.append([a.score(dot, seen[j // self.heads]) for j, dot in enumerate(sums_of)])
            values.append({e: a.v(args, kv_head, position, self._read(*e, a.value_dim)) for e in own})
        tops = [reduce(UOp.maximum, [old("top", j), *(row[j] for row in scores)]) for j in self.queries]
        fades = [(old("top", j) - top).exp2() for j, top in enumerate(tops)]
        weights = [[chance(score, top) for score, top in zip(row, tops, strict=True)] for row in scores]

        def new_state(name: str, j: int) -> UOp:
            return tops[j] if name == "top" else added([old(name, j) * fades[j], *(row[j] for row in weights)])

        def new_sum(j: int, strip: int, i: int) -> UOp:
            more = [row[j] * value[strip, i] for row, value in zip(weights, values, strict=True)]
            return added([old(j, strip, i) * fades[j], *more])

        now = (ready, *loop)
        return sums.store(now, lambda *n: new_state(*n) if isinstance(n[0], str) else new_sum(*n)).end(*loop)

    def meet(self, found: Callable[..., UOp]) -> UOp:
        """The groups of each warp put together, in local memory: [warps, queries, sums and the highest score and the
        denominator]."""
        dim = self.a.value_dim
        shared = UOp.placeholder((self.warps, len(self.queries), dim + 2), dtypes.float32, _SLOT + 2, AddrSpace.LOCAL)
        stores = []
        for j in self.queries:
            top = self._exchange(found("top", j), UOp.maximum, near=False)
            fade = (found("top", j) - top).exp2()
            for e in self._own(dim):
                at = self._column(*e)
                place = element(shared, (self.warp, j, at), (self.lane < self.width) & (at < dim))
                stores.append(place.store(self._exchange(found(j, *e) * fade, add, near=False)))
            # all lanes have the same highest score and denominator, and all may store them
            stores.append(shared[self.warp, j, dim].store(top))
            total = self._exchange(found("total", j) * fade, add, near=False)
            stores.append(shared[self.warp, j, dim + 1].store(total))
        return shared.after(UOp.group(*stores))

    def put(self, shared: UOp) -> UOp:
        """The warps put together, an output for each thread."""
        a, dim, size, count = self.a, self.a.value_dim, self.warps * WARP, len(self.queries) * self.a.value_dim
        turn = UOp.range(-(-count // size), 4, AxisType.LOOP)
        at = turn * size + self.warp * WARP + self.lane
        real = at < count
        at = at if int(at.vmax) < count else at.minimum(count - 1)
        j, column = at // dim, at % dim
        tops = [shared[i, j, dim] for i in range(self.warps)]
        top = reduce(UOp.maximum, tops)
        fades = [(t - top).exp2() for t in tops]
        total = added([shared[i, j, dim + 1] * fade for i, fade in enumerate(fades)])
        row, head = self.span.row(j // self.heads), self.first + j % self.heads
        scale, lse = a.finish(self.args, self.span.split, head, top, total)
        mean = added([shared[i, j, column] * fade for i, fade in enumerate(fades)]) * scale
        out = element(self.args["out"], (row, head, column), real)
        stores = [out.store(mean.cast(DTYPES[self.w.out_dtype]))]
        if not a.many:  # threads that have no output, or another column, store the same lse
            stores.append(self.args["lse"][row, head].store(lse))
        return UOp.group(*stores).end(turn).end(*self.threads)
