"""Attention by a workgroup whose threads meet in local memory, or by a single thread in their place.

A workgroup takes `heads` query heads of one kv head (in a prompt, those of `tokens` tokens) and one split of the
context. It goes through the split in tiles of `tile` positions:
    1  each thread computes the scores of some positions with all queries, so that K is read once for all queries
    2  the highest score of each query is found in `PARTS` parts
    3  each score becomes 2^(score - running maximum), which never overflows
    4  each thread adds `COLUMNS` columns of V, weighted, for all queries; `ways` threads share out the positions
The running sums stay in local memory. When the running maximum rises they are scaled down (Milakov & Gimelshein,
"Online normalizer calculation for softmax", 2018).
"""

from __future__ import annotations

from functools import partial

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.backends import Needs
from kernels.ops.attention.attend import EMPTY, Attention, Span, chance, queries, span
from kernels.ops.kit.loops import largest, reduce_add, reduce_max, total
from kernels.ops.kit.workgroup import PARTS, Store, Workgroup
from kernels.ops.op import DTYPES, Args, Params
from kernels.tinygrad.uops import AxisType

LOCAL_NBYTES = 32768  # more of it would leave room for fewer workgroups at a time
COLUMNS = 8
MAX_HEADS, MAX_QUERIES = 7, 8  # queries of a workgroup, for one token and for a prompt: the code grows with them


def workgroup_params(a: Attention) -> tuple[Params, ...]:
    """The parameters of `workgroup`: step 4 has at most one piece of work for a thread, and the arrays fit in
    LOCAL_NBYTES."""
    return tuple(
        {"heads": heads, "threads": threads, "tile": tile, "ways": ways} | more
        for more, heads in _queries(a)
        for threads in (128, 64, 256, 32)
        for tile in (128, 64, 256)
        for ways in (8, 4, 2, 1, 16)
        if tile >= threads and 1 < ways * -(-a.value_dim // COLUMNS) <= threads
        if _nbytes(a, heads * more.get("tokens", 1), tile, ways) <= LOCAL_NBYTES
    )


def single_thread_params(a: Attention) -> tuple[Params, ...]:
    """The parameters of `single_thread`: `threads` such threads run side by side, on devices without a grid."""
    return tuple(
        {"heads": heads, "threads": threads, "tile": tile} | more
        for more, heads in _queries(a)
        for tile in (32, 64, 16, 128)
        for threads in (1, 2, 4, 8, 16, 32, 64)
        if max(_blocks(a, heads, more)) % threads == 0
    )


def _queries(a: Attention) -> list[tuple[Params, int]]:
    """The numbers of queries that are worth a try: for one token the three largest, for a prompt from half the largest
    number on."""
    found = list(queries(a, MAX_QUERIES if a.prefill else MAX_HEADS))
    most = max(heads * more.get("tokens", 1) for more, heads in found)
    return (
        [(more, heads) for more, heads in found if heads * more.get("tokens", 1) >= most / 2]
        if a.prefill
        else found[:3]
    )


def _blocks(a: Attention, heads: int, more: Params) -> tuple[int, int]:
    """The numbers of workgroups: splits, or in a prompt runs of tokens; and blocks of `heads` heads."""
    return a.tokens // more["tokens"] if a.prefill else a.splits, a.heads // heads


def _nbytes(a: Attention, count: int, tile: int, ways: int) -> int:
    """Bytes of local memory for `count` queries."""
    return 4 * count * (a.head_dim + 2 * tile + PARTS + 3 + ways * -(-a.value_dim // COLUMNS) * (COLUMNS + 1))


def workgroup_needs(a: Attention, params: Params) -> Needs:
    count = params["heads"] * params.get("tokens", 1)
    return Needs(params["threads"], _nbytes(a, count, params["tile"], params["ways"]))


def workgroup(w: Workload, a: Attention, params: Params, args: Args) -> UOp:
    """The kernel: a workgroup of `threads` threads for each (split, block of heads), or (run of tokens, block of
    heads)."""
    outers, blocks = _blocks(a, params["heads"], params)
    outer = UOp.range(outers, 0, AxisType.GLOBAL)
    block = UOp.range(blocks, 1, AxisType.GLOBAL)
    member = UOp.range(params["threads"], -1, AxisType.WARP)  # WARP: any other kind would be split by // and %
    wg = Workgroup(params["threads"], member, outer, block)
    here = span(a, outer, params.get("tokens", 1))
    return _Work(w, a, params, args, wg, here, block).done().end(outer, block, member)


def single_thread(w: Workload, a: Attention, params: Params, args: Args) -> UOp:
    """The kernel: `threads` threads share out the splits or runs of tokens, or the blocks of heads if there are
    more."""
    (outers, blocks), threads = _blocks(a, params["heads"], params), params["threads"]
    most, least = max(outers, blocks), min(outers, blocks)
    thread = UOp.range(threads, 0, AxisType.THREAD)
    turns = UOp.range(most // threads, 1, AxisType.LOOP), UOp.range(least, 2, AxisType.LOOP)
    share = thread * (most // threads) + turns[0]
    outer, block = (share, turns[1]) if outers >= blocks else (turns[1], share)
    wg = Workgroup(1, None, thread, *turns)
    here = span(a, outer, params.get("tokens", 1), alike=True)
    return _Work(w, a, params, args, wg, here, block).done().end(*turns).end(thread)


class _Work:
    """The work of a workgroup. Every method but `done` is the work on the i-th piece of a step.

    Query j is that of head `first` + j % heads and the span's token j // heads.
    """

    def __init__(self, w: Workload, a: Attention, params: Params, args: Args, wg: Workgroup, span: Span, block: UOp):
        self.a, self.args, self.wg, self.span = a, args, wg, span
        self.heads, self.tile, self.ways = params["heads"], params["tile"], params.get("ways", 1)
        self.count = self.heads * span.tokens
        self.parts = 1 if wg.member is None else PARTS
        self.strips = -(-a.value_dim // COLUMNS)
        self.first, self.kv_head = block * self.heads, block * self.heads // a.group
        self.turn, self.loop = span.turns(self.tile, wg.allot.number())
        self.out_dtype = DTYPES[w.out_dtype]
        count = self.count
        self.q = wg.array(count, a.head_dim)
        self.scores, self.weights = wg.array(count, self.tile), wg.array(count, self.tile)
        self.parted = wg.array(count, self.parts)
        self.top, self.next_top, self.fade = wg.array(count), wg.array(count), wg.array(count)
        # each strip of columns has a denominator of its own, so that no thread waits for another
        self.total = wg.array(self.ways, count, self.strips)
        self.sums = wg.array(self.ways, count, self.strips * COLUMNS)

    def done(self) -> UOp:
        wg, count = self.wg, self.count
        wg.update(count * self.a.head_dim, self.ask)
        wg.update(count, lambda j: [(self.top, (j,), UOp.const(EMPTY, dtypes.float32))])
        for array, last in ((self.total, self.strips), (self.sums, self.strips * COLUMNS)):
            wg.update(self.ways * count * last, partial(self.clear, array, last))
        wg.now = (*wg.now, *self.loop)
        wg.update(self.tile, self.score)
        wg.update(count * self.parts, self.part)
        wg.update(count, self.peak)
        wg.update(count * self.tile, self.weigh)
        wg.update(self.ways * self.strips, self.add)
        wg.repeat(self.loop)
        wg.update(count * self.a.value_dim, self.put)
        return UOp.group(*wg.now)

    def ask(self, i: UOp) -> list[Store]:
        j, column = i // self.a.head_dim, i % self.a.head_dim
        token, head = self.span.token + j // self.heads, self.first + j % self.heads
        return [(self.q, (j, column), self.a.q(self.args, token, head, column))]

    def clear(self, array: UOp, last: int, i: UOp) -> list[Store]:
        at = (i // (self.count * last), i // last % self.count, i % last)
        return [(array, at, UOp.const(0.0, dtypes.float32))]

    def score(self, i: UOp) -> list[Store]:
        """The scores of position i with all queries. Each has COLUMNS accumulators, which fill a vector register."""
        a, count = self.a, range(self.count)
        position, inside = self.span.at(self.turn * self.tile + i)
        step = self.wg.allot.loop(-(-a.head_dim // COLUMNS))
        accumulators: list[list[UOp]] = [[] for _ in count]
        for c in range(COLUMNS):
            column = step * COLUMNS + c
            whole = a.head_dim % COLUMNS == 0
            # beyond the last column the key is 0, so that any column of q will do
            key = a.k(self.args, self.kv_head, position, column if whole else column.valid(column < a.head_dim))
            asked = column if whole else column.minimum(a.head_dim - 1)
            for j in count:
                accumulators[j].append(reduce_add(self.wg.read(self.q)[j, asked] * key, step))
        seen = [self.span.seen(position, inside, t) for t in range(self.span.tokens)]
        return [(self.scores, (j, i), a.score(total(accumulators[j]), seen[j // self.heads])) for j in count]

    def part(self, i: UOp) -> list[Store]:
        size = self.tile // self.parts
        j, part, row = i // self.parts, i % self.parts, self.wg.allot.loop(size)
        highest = reduce_max(self.wg.read(self.scores)[j, part * size + row], row)
        return [(self.parted, (j, part), highest)]

    def peak(self, j: UOp) -> list[Store]:
        read = self.wg.read
        highest = largest([read(self.top)[j], *(read(self.parted)[j, p] for p in range(self.parts))])
        return [(self.next_top, (j,), highest), (self.fade, (j,), (read(self.top)[j] - highest).exp2())]

    def weigh(self, i: UOp) -> list[Store]:
        read, at = self.wg.read, (i // self.tile, i % self.tile)
        return [(self.weights, at, chance(read(self.scores)[at], read(self.next_top)[at[0]]))]

    def add(self, i: UOp) -> list[Store]:
        """A strip of COLUMNS columns of V, summed over every `ways`-th position of the tile."""
        a, read = self.a, self.wg.read
        way, strip, row = i // self.strips, i % self.strips, self.wg.allot.loop(self.tile // self.ways)
        at = row * self.ways + way
        position, _ = self.span.at(self.turn * self.tile + at)
        values = []
        for c in range(COLUMNS):
            column = strip * COLUMNS + c
            inside = column if a.value_dim % COLUMNS == 0 else column.valid(column < a.value_dim)
            values.append((column, a.v(self.args, self.kv_head, position, inside)))
        done: list[Store] = []
        for j in range(self.count):
            weight, fade = read(self.weights)[j, at], read(self.fade)[j]
            for column, value in values:
                new = read(self.sums)[way, j, column] * fade + reduce_add(weight * value, row)
                done.append((self.sums, (way, j, column), new))
            new = read(self.total)[way, j, strip] * fade + reduce_add(weight, row)
            done.append((self.total, (way, j, strip), new))
            done.append((self.top, (j,), read(self.next_top)[j]))
        return done

    def put(self, i: UOp) -> list[Store]:
        a, read, ways = self.a, self.wg.read, range(self.ways)
        j, column = i // a.value_dim, i % a.value_dim
        row, head = self.span.row(j // self.heads), self.first + j % self.heads
        denominator = total([read(self.total)[way, j, 0] for way in ways])
        scale, lse = a.finish(self.args, self.span.split, head, read(self.top)[j], denominator)
        mean = total([read(self.sums)[way, j, column] for way in ways]) * scale
        out: list[Store] = [(self.args["out"], (row, head, column), mean.cast(self.out_dtype))]
        return out if a.prefill else [*out, (self.args["lse"], (row, head), lse)]  # the same lse for all columns
