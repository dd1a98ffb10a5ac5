"""Attention by a team: the threads of a workgroup that meet in local memory, or one thread in their place.

A team takes `heads` query heads of one kv head, of many tokens those of `tokens` of them, and one split of the context,
in tiles of `tile` positions:
    1  each member computes the scores of some positions with all queries, so that K is read once for all of them
    2  the highest score of each query is found in `PARTS` parts
    3  scores become powers of 2 below the running maximum, which never overflow
    4  each member adds `COLUMNS` columns of V, weighted, for all queries; `ways` members share out the positions
Running sums stay in the team's memory, where a higher maximum fades them (Milakov & Gimelshein, "Online normalizer
calculation for softmax", 2018). tinygrad puts a barrier between a store to local memory and a load that comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.backends import Needs
from kernels.ops.attention.attend import EMPTY, Attention, Span, added, chance, queries, reduce_add, reduce_max, span
from kernels.ops.kit.masked_element import element
from kernels.ops.kit.workgroup import PARTS, Store, loop
from kernels.ops.op import DTYPES, Args, Params
from kernels.tinygrad.uops import AddrSpace, AxisType

LOCAL_NBYTES = 32768  # more of it would leave room for fewer workgroups at a time
COLUMNS = 8
MAX_HEADS, MAX_QUERIES = 7, 8  # of a team, of one token and of many: the code grows with them
_SLOT = 200  # tinygrad numbers its own arrays from 0


def team_params(a: Attention) -> tuple[Params, ...]:
    """For a workgroup: `ways` so that step 4 has work for the threads, and no more memory than there is."""
    return tuple(
        {"heads": heads, "threads": threads, "tile": tile, "ways": ways} | more
        for more, heads in _queries(a)
        for threads in (128, 64, 256, 32)
        for tile in (128, 64, 256)
        for ways in (8, 4, 2, 1, 16)
        if tile >= threads and 1 < ways * -(-a.value_dim // COLUMNS) <= threads
        if _nbytes(a, heads * more.get("tokens", 1), tile, ways) <= LOCAL_NBYTES
    )


def solo_params(a: Attention) -> tuple[Params, ...]:
    """For one thread: `threads` of these work next to each other, where a device has no grid of them."""
    return tuple(
        {"heads": heads, "threads": threads, "tile": tile} | more
        for more, heads in _queries(a)
        for tile in (32, 64, 16, 128)
        for threads in (1, 2, 4, 8, 16, 32, 64)
        if max(_blocks(a, heads, more)) % threads == 0
    )


def _queries(a: Attention) -> list[tuple[Params, int]]:
    """Those worth a try: of one token the three largest, of many the most at once and half as many."""
    found = list(queries(a, MAX_QUERIES if a.many else MAX_HEADS))
    most = max(heads * more.get("tokens", 1) for more, heads in found)
    return (
        [(more, heads) for more, heads in found if heads * more.get("tokens", 1) >= most / 2] if a.many else found[:3]
    )


def _blocks(a: Attention, heads: int, more: Params) -> tuple[int, int]:
    """How many splits or runs of tokens there are, and how many of the heads."""
    return a.tokens // more["tokens"] if a.many else a.splits, a.heads // heads


def _nbytes(a: Attention, count: int, tile: int, ways: int) -> int:
    """Of local memory for `count` queries."""
    return 4 * count * (a.head_dim + 2 * tile + PARTS + 3 + ways * -(-a.value_dim // COLUMNS) * (COLUMNS + 1))


def team_needs(a: Attention, params: Params) -> Needs:
    count = params["heads"] * params.get("tokens", 1)
    return Needs(params["threads"], _nbytes(a, count, params["tile"], params["ways"]))


@dataclass
class _Team:
    """Work is given out with `each`; `now` is what has been done so far."""

    threads: int
    member: UOp | None  # None: one thread, which does all the work itself
    now: tuple[UOp, ...]
    _arrays: int = 0
    _ranges: int = 10

    def array(self, *shape: int) -> UOp:
        self._arrays += 1
        space = AddrSpace.REG if self.member is None else AddrSpace.LOCAL
        return UOp.placeholder(shape, dtypes.float32, slot=_SLOT + self._arrays, addrspace=space)

    def loop(self, size: int) -> UOp:
        """A loop of each member's own, to reduce over."""
        self._ranges += 1
        return loop(size, self._ranges)

    def each(self, count: int, work: Callable[[UOp], Sequence[Store]]) -> None:
        """work(i) for every i < count, shared out among the members; what comes next finds it done. Members without
        work redo the last piece and don't store it: it may read what it writes."""
        turns = count if self.member is None else -(-count // self.threads)
        self._ranges += 1
        turn = UOp.range(turns, self._ranges, AxisType.LOOP) if turns > 1 else UOp.const(0, dtypes.weakint)
        i = turn if self.member is None else turn * self.threads + self.member
        inside = None if self.member is None or count % self.threads == 0 else i < count
        done = []
        for array, indices, value in work(i if inside is None else i.minimum(count - 1)):
            done.append(element(array, indices, inside).store(value))
        self.now = (UOp.group(*done).end(turn) if turns > 1 else UOp.group(*done),)

    def repeat(self, loop: tuple[UOp, ...]) -> None:
        """All that has been done since `loop` joined `now`, for each of its values.

        What the next turn writes, all must have read: a barrier. Left to tinygrad 0.14 it would depend on loads of
        inner loops (codegen.add_war_barrier), which then seem not to have ended, and code lands in the wrong loop. For
        the same reason no piece of work that is done in several turns reads and writes the same array.
        """
        done = UOp.group(*self.now)
        self.now = ((done if self.member is None or not loop else done.barrier()).end(*loop),)

    def read(self, array: UOp) -> UOp:
        """The array as it is now."""
        return array.after(*self.now)


def team(w: Workload, a: Attention, params: Params, args: Args) -> UOp:
    """Workgroups of `threads` for each (split, heads), or (tokens, heads)."""
    outers, blocks = _blocks(a, params["heads"], params)
    outer = UOp.range(outers, 0, AxisType.GLOBAL)
    block = UOp.range(blocks, 1, AxisType.GLOBAL)
    member = UOp.range(params["threads"], -1, AxisType.WARP)  # WARP: any other kind would be split by // and %
    crew = _Team(params["threads"], member, (outer, block, member))
    here = span(a, outer, params.get("tokens", 1))
    return _Work(w, a, params, args, crew, here, block).done().end(outer, block, member)


def solo(w: Workload, a: Attention, params: Params, args: Args) -> UOp:
    """One thread for each of `threads` shares of the splits or tokens, or of the heads where there are more."""
    (outers, blocks), threads = _blocks(a, params["heads"], params), params["threads"]
    most, least = max(outers, blocks), min(outers, blocks)
    thread = UOp.range(threads, 0, AxisType.THREAD)
    turns = UOp.range(most // threads, 1, AxisType.LOOP), UOp.range(least, 2, AxisType.LOOP)
    share = thread * (most // threads) + turns[0]
    outer, block = (share, turns[1]) if outers >= blocks else (turns[1], share)
    crew = _Team(1, None, (thread, *turns))
    here = span(a, outer, params.get("tokens", 1), alike=True)
    return _Work(w, a, params, args, crew, here, block).done().end(*turns).end(thread)


class _Work:
    """What a team does, piece by piece: each method but `done` is the work on the i-th piece of a step.

    Query j is that of head `first` + j % heads and the span's token j // heads.
    """

    def __init__(self, w: Workload, a: Attention, params: Params, args: Args, crew: _Team, span: Span, block: UOp):
        self.a, self.args, self.crew, self.span = a, args, crew, span
        self.heads, self.tile, self.ways = params["heads"], params["tile"], params.get("ways", 1)
        self.count = self.heads * span.tokens
        self.parts = 1 if crew.member is None else PARTS
        self.strips = -(-a.value_dim // COLUMNS)
        self.first, self.kv_head = block * self.heads, block * self.heads // a.group
        self.turn, self.loop = span.turns(self.tile, 3)
        self.out_dtype = DTYPES[w.out_dtype]
        count = self.count
        self.q = crew.array(count, a.head_dim)
        self.scores, self.weights = crew.array(count, self.tile), crew.array(count, self.tile)
        self.parted = crew.array(count, self.parts)
        self.top, self.next_top, self.fade = crew.array(count), crew.array(count), crew.array(count)
        # a denominator for each strip of columns: whoever adds these counts for itself
        self.total = crew.array(self.ways, count, self.strips)
        self.sums = crew.array(self.ways, count, self.strips * COLUMNS)

    def done(self) -> UOp:
        crew, count = self.crew, self.count
        crew.each(count * self.a.head_dim, self.ask)
        crew.each(count, lambda j: [(crew.read(self.top), (j,), UOp.const(EMPTY, dtypes.float32))])
        for array, last in ((self.total, self.strips), (self.sums, self.strips * COLUMNS)):
            crew.each(self.ways * count * last, partial(self.clear, array, last))
        crew.now = (*crew.now, *self.loop)
        crew.each(self.tile, self.score)
        crew.each(count * self.parts, self.part)
        crew.each(count, self.peak)
        crew.each(count * self.tile, self.weigh)
        crew.each(self.ways * self.strips, self.add)
        crew.repeat(self.loop)
        crew.each(count * self.a.value_dim, self.put)
        return UOp.group(*crew.now)

    def ask(self, i: UOp) -> list[Store]:
        j, column = i // self.a.head_dim, i % self.a.head_dim
        token, head = self.span.token + j // self.heads, self.first + j % self.heads
        return [(self.crew.read(self.q), (j, column), self.a.q(self.args, token, head, column))]

    def clear(self, array: UOp, last: int, i: UOp) -> list[Store]:
        at = (i // (self.count * last), i // last % self.count, i % last)
        return [(self.crew.read(array), at, UOp.const(0.0, dtypes.float32))]

    def score(self, i: UOp) -> list[Store]:
        """Of position i with all queries; a sum for each of COLUMNS lanes, which a CPU adds up in a vector register."""
        a, count = self.a, range(self.count)
        position, inside = self.span.at(self.turn * self.tile + i)
        step = self.crew.loop(-(-a.head_dim // COLUMNS))
        lanes: list[list[UOp]] = [[] for _ in count]
        for lane in range(COLUMNS):
            column = step * COLUMNS + lane
            whole = a.head_dim % COLUMNS == 0
            # past the last column the key is 0, and q's last column as good as any
            key = a.k(self.args, self.kv_head, position, column if whole else column.valid(column < a.head_dim))
            asked = column if whole else column.minimum(a.head_dim - 1)
            for j in count:
                lanes[j].append(reduce_add(self.crew.read(self.q)[j, asked] * key, step))
        seen = [self.span.seen(position, inside, t) for t in range(self.span.tokens)]
        scores = self.crew.read(self.scores)
        return [(scores, (j, i), a.score(added(lanes[j]), seen[j // self.heads])) for j in count]

    def part(self, i: UOp) -> list[Store]:
        size = self.tile // self.parts
        j, part, row = i // self.parts, i % self.parts, self.crew.loop(size)
        highest = reduce_max(self.crew.read(self.scores)[j, part * size + row], row)
        return [(self.crew.read(self.parted), (j, part), highest)]

    def peak(self, j: UOp) -> list[Store]:
        read = self.crew.read
        highest = reduce(UOp.maximum, [read(self.parted)[j, p] for p in range(self.parts)], read(self.top)[j])
        return [(read(self.next_top), (j,), highest), (read(self.fade), (j,), (read(self.top)[j] - highest).exp2())]

    def weigh(self, i: UOp) -> list[Store]:
        read, at = self.crew.read, (i // self.tile, i % self.tile)
        return [(read(self.weights), at, chance(read(self.scores)[at], read(self.next_top)[at[0]]))]

    def add(self, i: UOp) -> list[Store]:
        """A strip of columns of V, of every position that is this way's."""
        a, read = self.a, self.crew.read
        way, strip, row = i // self.strips, i % self.strips, self.crew.loop(self.tile // self.ways)
        at = row * self.ways + way
        position, _ = self.span.at(self.turn * self.tile + at)
        values = []
        for lane in range(COLUMNS):
            column = strip * COLUMNS + lane
            inside = column if a.value_dim % COLUMNS == 0 else column.valid(column < a.value_dim)
            values.append((column, a.v(self.args, self.kv_head, position, inside)))
        done: list[Store] = []
        for j in range(self.count):
            weight, fade = read(self.weights)[j, at], read(self.fade)[j]
            for column, value in values:
                new = read(self.sums)[way, j, column] * fade + reduce_add(weight * value, row)
                done.append((read(self.sums), (way, j, column), new))
            new = read(self.total)[way, j, strip] * fade + reduce_add(weight, row)
            done.append((read(self.total), (way, j, strip), new))
            done.append((read(self.top), (j,), read(self.next_top)[j]))
        return done

    def put(self, i: UOp) -> list[Store]:
        a, read, ways = self.a, self.crew.read, range(self.ways)
        j, column = i // a.value_dim, i % a.value_dim
        row, head = self.span.row(j // self.heads), self.first + j % self.heads
        total = added([read(self.total)[way, j, 0] for way in ways])
        scale, lse = a.finish(self.args, self.span.split, head, read(self.top)[j], total)
        mean = added([read(self.sums)[way, j, column] for way in ways]) * scale
        out: list[Store] = [(self.args["out"], (row, head, column), mean.cast(self.out_dtype))]
        return out if a.many else [*out, (self.args["lse"], (row, head), lse)]  # the same lse for all columns
