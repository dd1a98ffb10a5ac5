"""Attention of one token by a team: the threads of a workgroup that meet in local memory, or one thread in their place.

A team takes `heads` query heads of one kv head and one split of the context, in tiles of `tile` positions:
    1  each member computes the scores of some positions with all of the heads, so that K is read once for all of them
    2  the highest score of each head is found in `PARTS` parts
    3  scores become powers of 2 below the running maximum, which never overflow
    4  each member adds `COLUMNS` columns of V, weighted, for all of the heads; `ways` members share out the positions
Running sums stay in the team's memory, where a higher maximum fades them (Milakov & Gimelshein, "Online normalizer
calculation for softmax", 2018). tinygrad puts a barrier between a store to local memory and a load that comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce

from tinygrad import UOp, dtypes
from tinygrad.dtype import AddrSpace
from tinygrad.uop.ops import AxisType

from db.records import Workload
from kernels.op import DTYPES, Args, Params
from kernels.ops.attend import EMPTY, Attention, added, chance, divisors, reduce_add, reduce_max
from kernels.ops.gated import element
from kernels.ops.team import PARTS, Store, loop

LOCAL_NBYTES = 32768  # what every device with local memory has for a workgroup
COLUMNS = 8
MAX_HEADS = 7  # of a team: the code grows with them
_SLOT = 200  # tinygrad numbers its own arrays from 0


def team_params(a: Attention) -> tuple[Params, ...]:
    """For a workgroup: `ways` so that step 4 has work for the threads, and no more memory than there is."""
    return tuple(
        {"heads": heads, "threads": threads, "tile": tile, "ways": ways}
        for heads in divisors(a.group, MAX_HEADS)[:3]
        for threads in (128, 64, 256, 32)
        for tile in (128, 64, 256)
        for ways in (8, 4, 2, 1, 16)
        if tile >= threads and 1 < ways * -(-a.value_dim // COLUMNS) <= threads
        if _nbytes(a, heads, tile, ways) <= LOCAL_NBYTES
    )


def solo_params(a: Attention) -> tuple[Params, ...]:
    """For one thread: `threads` of these work next to each other, where a device has no grid of them."""
    return tuple(
        {"heads": heads, "threads": threads, "tile": tile}
        for heads in divisors(a.group, MAX_HEADS)[:2]
        for tile in (32, 64, 16, 128)
        for threads in (1, 2, 4, 8, 16, 32, 64)
        if (a.splits if a.splits > 1 else a.heads // heads) % threads == 0
    )


def _nbytes(a: Attention, heads: int, tile: int, ways: int) -> int:
    return 4 * heads * (a.head_dim + 2 * tile + PARTS + 3 + ways * -(-a.value_dim // COLUMNS) * (COLUMNS + 1))


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
    """Workgroups of `threads` for each (split, heads)."""
    split = UOp.range(a.splits, 0, AxisType.GLOBAL)
    block = UOp.range(a.heads // params["heads"], 1, AxisType.GLOBAL)
    member = UOp.range(params["threads"], -1, AxisType.WARP)  # WARP: any other kind would be split by // and %
    crew = _Team(params["threads"], member, (split, block, member))
    return _Work(w, a, params, args, crew, split, block).done().end(split, block, member)


def solo(w: Workload, a: Attention, params: Params, args: Args) -> UOp:
    """One thread for each of `threads` shares of the splits, or of the heads where there is one split."""
    blocks, threads = a.heads // params["heads"], params["threads"]
    shared, other = (a.splits, blocks) if a.splits > 1 else (blocks, a.splits)
    thread = UOp.range(threads, 0, AxisType.THREAD)
    turns = UOp.range(shared // threads, 1, AxisType.LOOP), UOp.range(other, 2, AxisType.LOOP)
    share = thread * (shared // threads) + turns[0]
    split, block = (share, turns[1]) if a.splits > 1 else (turns[1], share)
    crew = _Team(1, None, (thread, *turns))
    return _Work(w, a, params, args, crew, split, block).done().end(*turns).end(thread)


class _Work:
    """What a team does, piece by piece: each method but `done` is the work on the i-th piece of a step."""

    def __init__(self, w: Workload, a: Attention, params: Params, args: Args, crew: _Team, split: UOp, block: UOp):
        self.a, self.args, self.crew, self.split = a, args, crew, split
        self.heads, self.tile, self.ways = params["heads"], params["tile"], params.get("ways", 1)
        self.parts = 1 if crew.member is None else PARTS
        self.strips = -(-a.value_dim // COLUMNS)
        self.first, self.kv_head = block * self.heads, block * self.heads // a.group
        self.turn, self.loop = a.turns(self.tile, 3)
        self.out_dtype = DTYPES[w.out_dtype]
        heads = self.heads
        self.q = crew.array(heads, a.head_dim)
        self.scores, self.weights = crew.array(heads, self.tile), crew.array(heads, self.tile)
        self.parted = crew.array(heads, self.parts)
        self.top, self.next_top, self.fade = crew.array(heads), crew.array(heads), crew.array(heads)
        # a denominator for each strip of columns: whoever adds these counts for itself
        self.total = crew.array(self.ways, heads, self.strips)
        self.sums = crew.array(self.ways, heads, self.strips * COLUMNS)

    def done(self) -> UOp:
        crew, heads = self.crew, self.heads
        crew.each(heads * self.a.head_dim, self.ask)
        crew.each(heads, lambda h: [(crew.read(self.top), (h,), UOp.const(EMPTY, dtypes.float32))])
        for array, last in ((self.total, self.strips), (self.sums, self.strips * COLUMNS)):
            crew.each(self.ways * heads * last, partial(self.clear, array, last))
        crew.now = (*crew.now, *self.loop)
        crew.each(self.tile, self.score)
        crew.each(heads * self.parts, self.part)
        crew.each(heads, self.peak)
        crew.each(heads * self.tile, self.weigh)
        crew.each(self.ways * self.strips, self.add)
        crew.repeat(self.loop)
        crew.each(heads * self.a.value_dim, self.put)
        return UOp.group(*crew.now)

    def ask(self, i: UOp) -> list[Store]:
        h, column = i // self.a.head_dim, i % self.a.head_dim
        return [(self.crew.read(self.q), (h, column), self.a.q(self.args, self.first + h, column))]

    def clear(self, array: UOp, last: int, i: UOp) -> list[Store]:
        at = (i // (self.heads * last), i // last % self.heads, i % last)
        return [(self.crew.read(array), at, UOp.const(0.0, dtypes.float32))]

    def score(self, i: UOp) -> list[Store]:
        """Of position i with all heads; a sum for each of COLUMNS lanes, which a CPU adds up in a vector register."""
        a, heads = self.a, range(self.heads)
        position, valid = a.at(self.split, self.turn * self.tile + i)
        step = self.crew.loop(-(-a.head_dim // COLUMNS))
        lanes: list[list[UOp]] = [[] for _ in heads]
        for lane in range(COLUMNS):
            column = step * COLUMNS + lane
            whole = a.head_dim % COLUMNS == 0
            # past the last column the key is 0, and q's last column as good as any
            key = a.k(self.args, self.kv_head, position, column if whole else column.valid(column < a.head_dim))
            asked = column if whole else column.minimum(a.head_dim - 1)
            for h in heads:
                lanes[h].append(reduce_add(self.crew.read(self.q)[h, asked] * key, step))
        return [(self.crew.read(self.scores), (h, i), a.score(added(lanes[h]), valid)) for h in heads]

    def part(self, i: UOp) -> list[Store]:
        size = self.tile // self.parts
        h, part, row = i // self.parts, i % self.parts, self.crew.loop(size)
        highest = reduce_max(self.crew.read(self.scores)[h, part * size + row], row)
        return [(self.crew.read(self.parted), (h, part), highest)]

    def peak(self, h: UOp) -> list[Store]:
        read = self.crew.read
        highest = reduce(UOp.maximum, [read(self.parted)[h, p] for p in range(self.parts)], read(self.top)[h])
        return [(read(self.next_top), (h,), highest), (read(self.fade), (h,), (read(self.top)[h] - highest).exp2())]

    def weigh(self, i: UOp) -> list[Store]:
        read, at = self.crew.read, (i // self.tile, i % self.tile)
        return [(read(self.weights), at, chance(read(self.scores)[at], read(self.next_top)[at[0]]))]

    def add(self, i: UOp) -> list[Store]:
        """A strip of columns of V, of every position that is this way's."""
        a, read = self.a, self.crew.read
        way, strip, row = i // self.strips, i % self.strips, self.crew.loop(self.tile // self.ways)
        at = row * self.ways + way
        position, _ = a.at(self.split, self.turn * self.tile + at)
        values = []
        for lane in range(COLUMNS):
            column = strip * COLUMNS + lane
            inside = column if a.value_dim % COLUMNS == 0 else column.valid(column < a.value_dim)
            values.append((column, a.v(self.args, self.kv_head, position, inside)))
        done: list[Store] = []
        for h in range(self.heads):
            weight, fade = read(self.weights)[h, at], read(self.fade)[h]
            for column, value in values:
                new = read(self.sums)[way, h, column] * fade + reduce_add(weight * value, row)
                done.append((read(self.sums), (way, h, column), new))
            new = read(self.total)[way, h, strip] * fade + reduce_add(weight, row)
            done.append((read(self.total), (way, h, strip), new))
            done.append((read(self.top), (h,), read(self.next_top)[h]))
        return done

    def put(self, i: UOp) -> list[Store]:
        a, read, ways = self.a, self.crew.read, range(self.ways)
        h, column = i // a.value_dim, i % a.value_dim
        total = added([read(self.total)[way, h, 0] for way in ways])
        scale, lse = a.finish(self.args, self.split, self.first + h, read(self.top)[h], total)
        mean = added([read(self.sums)[way, h, column] for way in ways]) * scale
        return [
            (self.args["out"], (self.split, self.first + h, column), mean.cast(self.out_dtype)),
            (self.args["lse"], (self.split, self.first + h), lse),  # the same for all columns
        ]
