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

from tinygrad import UOp, dtypes
from tinygrad.dtype import AddrSpace
from tinygrad.uop.ops import AxisType

from db.records import Workload
from kernels.op import DTYPES, Args, Params
from kernels.ops.attend import EMPTY, Attention, added, chance, divisors, reduce_add, reduce_max

LOCAL_DEVICES = frozenset({"CUDA", "NV", "METAL", "CL", "AMD", "QCOM", "WEBGPU", "CUDA:PTX", "NV:PTX", "AMD:LLVM"})
LOCAL_NBYTES = 32768  # what every device with local memory has for a workgroup
COLUMNS = 8
PARTS = 16
_SLOT = 200  # tinygrad numbers its own arrays from 0

Store = tuple[UOp, tuple[UOp | int, ...], UOp]
"""(array, indices, value)."""


def team_params(a: Attention) -> tuple[Params, ...]:
    """For a workgroup: `ways` so that step 4 has work for the threads, and no more memory than there is."""
    return tuple(
        {"heads": heads, "threads": threads, "tile": tile, "ways": ways}
        for heads in divisors(a.group, 8)[:3]
        for threads in (128, 64, 256, 32)
        for tile in (128, 64, 256)
        for ways in (8, 4, 2, 1, 16)
        if tile >= threads and 1 < ways * -(-a.value_dim // COLUMNS) < 2 * threads
        if _nbytes(a, heads, tile, ways) <= LOCAL_NBYTES
    )


def solo_params(a: Attention) -> tuple[Params, ...]:
    """For one thread: `threads` of these work next to each other, where a device has no grid of them."""
    return tuple(
        {"heads": heads, "threads": threads, "tile": tile}
        for heads in divisors(a.group, 16)[:2]
        for tile in (64, 32, 128, 16)
        for threads in (1, 2, 4, 8, 16, 32, 64)
        if (a.splits if a.splits > 1 else a.heads // heads) % threads == 0
    )


def _nbytes(a: Attention, heads: int, tile: int, ways: int) -> int:
    return 4 * heads * (a.head_dim + tile + PARTS + 3 + ways * -(-a.value_dim // COLUMNS) * (COLUMNS + 1))


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

    def range(self, size: int | UOp, kind: AxisType = AxisType.REDUCE) -> UOp:
        self._ranges += 1
        return UOp.range(size, self._ranges, kind)

    def each(self, count: int, work: Callable[[UOp], Sequence[Store]]) -> None:
        """work(i) for every i < count, shared out among the members; what comes next finds it done.

        Members without work redo the last piece and don't store it. But tinygrad 0.14 drops the condition of a store
        whose element is the same for all members (symbolic.drop_and_clauses): a piece that all of them do must not read
        what it writes.
        """
        turns = count if self.member is None else -(-count // self.threads)
        turn = self.range(turns, AxisType.LOOP) if turns > 1 else UOp.const(0, dtypes.weakint)
        i = turn if self.member is None else turn * self.threads + self.member
        inside = None if self.member is None or count % self.threads == 0 else i < count
        done = []
        for array, (*indices, last), value in work(i if inside is None else i.minimum(count - 1)):
            last = UOp.const(last, dtypes.weakint) if isinstance(last, int) else last
            done.append(array[*indices, last if inside is None else last.valid(inside)].store(value))
        self.now = (UOp.group(*done).end(turn) if turns > 1 else UOp.group(*done),)

    def read(self, array: UOp) -> UOp:
        """The array as it is now."""
        return array.after(*self.now)


def team(w: Workload, a: Attention, params: Params, args: Args) -> UOp:
    """Workgroups of `threads` for each (split, heads)."""
    split = UOp.range(a.splits, 0, AxisType.GLOBAL)
    block = UOp.range(a.heads // params["heads"], 1, AxisType.GLOBAL)
    member = UOp.range(params["threads"], -1, AxisType.WARP)  # WARP: any other kind would be split by // and %
    crew = _Team(params["threads"], member, (split, block, member))
    return _attend(w, a, params, args, crew, split, block).end(split, block, member)


def solo(w: Workload, a: Attention, params: Params, args: Args) -> UOp:
    """One thread for each of `threads` shares of the splits, or of the heads where there is one split."""
    blocks, threads = a.heads // params["heads"], params["threads"]
    shared, other = (a.splits, blocks) if a.splits > 1 else (blocks, a.splits)
    thread = UOp.range(threads, 0, AxisType.THREAD)
    turns = UOp.range(shared // threads, 1, AxisType.LOOP), UOp.range(other, 2, AxisType.LOOP)
    share = thread * (shared // threads) + turns[0]
    split, block = (share, turns[1]) if a.splits > 1 else (turns[1], share)
    crew = _Team(1, None, (thread, *turns))
    return _attend(w, a, {"ways": 1, **params}, args, crew, split, block).end(*turns).end(thread)


def _attend(w: Workload, a: Attention, params: Params, args: Args, crew: _Team, split: UOp, block: UOp) -> UOp:
    heads, tile, ways = params["heads"], params["tile"], params["ways"]
    parts = 1 if crew.member is None else PARTS
    strips = -(-a.value_dim // COLUMNS)
    first, kv_head = block * heads, block * heads // a.group
    q, scores, parted = crew.array(heads, a.head_dim), crew.array(heads, tile), crew.array(heads, parts)
    top, next_top, fade = crew.array(heads), crew.array(heads), crew.array(heads)
    total, sums = crew.array(ways, heads, strips), crew.array(ways, heads, strips * COLUMNS)

    # before the first position: nothing seen
    dim = a.head_dim
    crew.each(heads * dim, lambda i: [(crew.read(q), (i // dim, i % dim), a.q(args, first + i // dim, i % dim))])
    crew.each(heads, lambda i: [(crew.read(top), (i,), UOp.const(EMPTY, dtypes.float32))])

    def nothing(array: UOp, last: int) -> None:
        """Zeros in an array [ways, heads, last]."""
        both = heads * last
        crew.each(
            ways * both,
            lambda i: [(crew.read(array), (i // both, i // last % heads, i % last), UOp.const(0.0, dtypes.float32))],
        )

    nothing(total, strips)
    nothing(sums, strips * COLUMNS)

    turn = crew.range((a.run + (tile - 1)) // tile)
    crew.now = (*crew.now, turn)

    def score(i: UOp) -> list[Store]:
        position, valid = a.at(split, turn * tile + i)
        step = crew.range(-(-dim // COLUMNS))
        lanes: list[list[UOp]] = [[] for _ in range(heads)]
        for lane in range(COLUMNS):
            column = step * COLUMNS + lane
            inside = None if dim % COLUMNS == 0 else column < dim
            key = a.k(args, kv_head, position, column if inside is None else column.valid(inside))
            for h in range(heads):
                query = crew.read(q)[h, column if inside is None else column.minimum(dim - 1)]
                lanes[h].append(reduce_add(query * key, step))
        return [(crew.read(scores), (h, i), a.score(added(lanes[h]), valid)) for h in range(heads)]

    def part(i: UOp) -> list[Store]:
        row = crew.range(tile // parts)
        highest = reduce_max(crew.read(scores)[i // parts, i % parts * (tile // parts) + row], row)
        return [(crew.read(parted), (i // parts, i % parts), highest)]

    def peak(head: UOp) -> list[Store]:
        highest = old = crew.read(top)[head]
        for p in range(parts):
            highest = highest.maximum(crew.read(parted)[head, p])
        return [(crew.read(next_top), (head,), highest), (crew.read(fade), (head,), (old - highest).exp2())]

    def weigh(i: UOp) -> list[Store]:
        at = (i // tile, i % tile)
        return [(crew.read(scores), at, chance(crew.read(scores)[at], crew.read(next_top)[at[0]]))]

    def add(i: UOp) -> list[Store]:
        way, strip = i // strips, i % strips
        row = crew.range(tile // ways)
        at = row * ways + way
        position, _ = a.at(split, turn * tile + at)
        weights = [crew.read(scores)[h, at] for h in range(heads)]
        done: list[Store] = []
        for lane in range(COLUMNS):
            column = strip * COLUMNS + lane
            inside = column if a.value_dim % COLUMNS == 0 else column.valid(column < a.value_dim)
            value = a.v(args, kv_head, position, inside)
            for h in range(heads):
                new = crew.read(sums)[way, h, column] * crew.read(fade)[h] + reduce_add(weights[h] * value, row)
                done.append((crew.read(sums), (way, h, column), new))
        for h in range(heads):
            new = crew.read(total)[way, h, strip] * crew.read(fade)[h] + reduce_add(weights[h], row)
            done.append((crew.read(total), (way, h, strip), new))
            done.append((crew.read(top), (h,), crew.read(next_top)[h]))
        return done

    crew.each(tile, score)
    crew.each(heads * parts, part)
    crew.each(heads, peak)
    crew.each(heads * tile, weigh)
    crew.each(ways * strips, add)
    crew.now = (UOp.group(*crew.now).end(turn),)

    def put(i: UOp) -> list[Store]:
        head, column = i // a.value_dim, i % a.value_dim
        whole = added([crew.read(total)[way, head, 0] for way in range(ways)])
        scale, lse = a.finish(args, split, first + head, crew.read(top)[head], whole)
        mean = added([crew.read(sums)[way, head, column] for way in range(ways)]) * scale
        return [
            (args["out"], (split, first + head, column), mean.cast(DTYPES[w.out_dtype])),
            (args["lse"], (split, (first + head).valid(column < 1)), lse),
        ]

    crew.each(heads * a.value_dim, put)
    return UOp.group(*crew.now)
