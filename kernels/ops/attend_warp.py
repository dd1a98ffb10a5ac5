"""Attention of one token by warps whose lanes meet in shuffles; the warps of a workgroup meet once, at the end.

A group of `lanes` lanes shares a position: each holds some columns of q and of the sums in registers, reads those of K
and V, and a shuffle adds up the dot products. Every group keeps a softmax of its own over the positions that it has
seen (Milakov & Gimelshein, 2018); in the end a warp's groups are put together by shuffles and its warps through local
memory. Nothing is fixed but the integer parameters:
    heads   query heads that a warp takes at once, sharing its reads of K and V
    lanes   lanes that share a position
    rows    positions that a group of lanes takes at a time
    warps   warps of a workgroup, which share out the positions of a split
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinygrad import UOp, dtypes
from tinygrad.dtype import AddrSpace
from tinygrad.uop.ops import AxisType, Ops

from db.records import Workload
from kernels.op import DTYPES, Args, Params
from kernels.ops.attend import EMPTY, Attention, added, chance, divisors
from kernels.ops.attend_team import LOCAL_NBYTES
from kernels.ops.warp import SHUFFLES, WARP

__all__ = ["SHUFFLES", "lanes", "lanes_params"]

COLUMNS = 8  # columns of 16 bytes, which a lane reads at a time
_REGISTERS = 160
_SLOT = 300  # tinygrad numbers its own arrays from 0


def lanes_params(a: Attention) -> tuple[Params, ...]:
    """Those that registers and local memory hold."""
    return tuple(
        {"heads": heads, "lanes": count, "rows": rows, "warps": warps}
        for heads in divisors(a.group, 8)
        for count in (16, 8, 32, 4)
        for warps in (4, 8, 2, 1)
        for rows in (2, 1, 4)
        if heads * COLUMNS * (_strips(a.head_dim, count) + _strips(a.value_dim, count)) <= _REGISTERS
        if rows * heads * _strips(a.head_dim, count) <= 16
        if 4 * warps * heads * (a.value_dim + 2) <= LOCAL_NBYTES
    )


def _strips(columns: int, lanes: int) -> int:
    """Runs of COLUMNS columns that a lane has."""
    return -(-columns // (COLUMNS * lanes))


@dataclass
class _Registers:
    """Named float32 registers of a thread."""

    array: UOp
    names: dict[tuple[object, ...], int]

    @staticmethod
    def of(slot: int, names: Sequence[tuple[object, ...]]) -> _Registers:
        array = UOp.placeholder((len(names),), dtypes.float32, slot=slot, addrspace=AddrSpace.REG)
        return _Registers(array, {name: i for i, name in enumerate(names)})

    def store(self, now: Sequence[UOp], values: Callable[..., UOp]) -> UOp:
        here = self.array.after(*now)
        return UOp.group(*[here[i].store(values(*name)) for name, i in self.names.items()])

    def load(self, now: Sequence[UOp]) -> Callable[..., UOp]:
        here = self.array.after(*now)
        return lambda *name: here[self.names[name]].load()


def _exchange(value: UOp, bits: Sequence[int], device: str, join: Callable[[UOp, UOp], UOp]) -> UOp:
    """`value` joined with those of the lanes whose number differs in `bits`; all of them then have the same."""
    for bit in bits:
        other = UOp(Ops.CUSTOM, src=(value,), arg=SHUFFLES[device].format(bit=bit), dtype=dtypes.float32)
        value = join(value, other)
    return value


def _add(a: UOp, b: UOp) -> UOp:
    return a + b


def _max(a: UOp, b: UOp) -> UOp:
    return a.maximum(b)


def lanes(w: Workload, a: Attention, params: Params, args: Args, device: str) -> UOp:
    """Workgroups of `warps` warps for each (split, heads)."""
    heads, count, rows, warps = (params[name] for name in ("heads", "lanes", "rows", "warps"))
    split = UOp.range(a.splits, 0, AxisType.GLOBAL)
    block = UOp.range(a.heads // heads, 1, AxisType.GLOBAL)
    warp = UOp.range(warps, 2, AxisType.LOCAL)
    lane = UOp.range(WARP, -1, AxisType.WARP)
    groups, group, member = WARP // count, lane // count, lane % count
    first, kv_head = block * heads, block * heads // a.group
    near = [bit for bit in (16, 8, 4, 2, 1) if bit < count]
    far = [bit for bit in (16, 8, 4, 2, 1) if bit >= count]

    def column(strip: int, i: int) -> UOp:
        return (strip * count + member) * COLUMNS + i

    def elements(columns: int) -> list[tuple[int, int]]:
        return [(strip, i) for strip in range(_strips(columns, count)) for i in range(COLUMNS)]

    def within(at: UOp, columns: int) -> UOp:
        """A column; none where a lane's are past the last, so that it reads zeros."""
        return at if int(at.vmax) < columns else at.valid(at < columns)

    keys, values = elements(a.head_dim), elements(a.value_dim)
    start = (split, block, warp, lane)
    query = _Registers.of(_SLOT, [(h, *e) for h in range(heads) for e in keys])
    state = [("top", h) for h in range(heads)] + [("total", h) for h in range(heads)]
    sums = _Registers.of(_SLOT + 1, [*state, *((h, *e) for h in range(heads) for e in values)])
    ready = UOp.group(
        query.store(start, lambda h, *e: a.q(args, first + h, within(column(*e), a.head_dim))),
        sums.store(start, lambda *name: UOp.const(EMPTY if name[0] == "top" else 0.0, dtypes.float32)),
    )

    step = warps * rows * groups
    turn = UOp.range((a.run + (step - 1)) // step, 3, AxisType.REDUCE)
    inside = (ready, turn)
    q, old = query.load(inside), sums.load(inside)
    scores: list[list[UOp]] = []
    positions = []
    for row in range(rows):
        position, valid = a.at(split, ((turn * warps + warp) * rows + row) * groups + group)
        positions.append(position)
        key = [a.k(args, kv_head, position, within(column(*e), a.head_dim)) for e in keys]
        dots = [added([q(h, *e) * k for e, k in zip(keys, key, strict=True)]) for h in range(heads)]
        scores.append([a.score(_exchange(dot, near, device, _add), valid) for dot in dots])
    tops = []
    for h in range(heads):
        top = old("top", h)
        for row in range(rows):
            top = top.maximum(scores[row][h])
        tops.append(top)
    fades = [(old("top", h) - tops[h]).exp2() for h in range(heads)]
    weights = [[chance(scores[row][h], tops[h]) for h in range(heads)] for row in range(rows)]
    value = {
        (row, e): a.v(args, kv_head, positions[row], within(column(*e), a.value_dim))
        for row in range(rows)
        for e in values
    }

    def update(name: object, *at: int) -> UOp:
        if name == "top":
            return tops[at[0]]
        if name == "total":
            h = at[0]
            return added([old(name, h) * fades[h], *(weights[row][h] for row in range(rows))])
        h = int(str(name))
        more = [weights[row][h] * value[row, (at[0], at[1])] for row in range(rows)]
        return added([old(h, *at) * fades[h], *more])

    done = sums.store(inside, update).end(turn)
    found = sums.load((done,))

    # the groups of a warp, then the warps: each fades to the highest maximum
    shared = UOp.placeholder((warps, heads, a.value_dim + 2), dtypes.float32, _SLOT + 2, AddrSpace.LOCAL)
    stores = []
    leads = group < 1
    for h in range(heads):
        highest = _exchange(found("top", h), far, device, _max)
        fade = (found("top", h) - highest).exp2()
        for e in values:
            at = column(*e)
            summed = _exchange(found(h, *e) * fade, far, device, _add)
            stores.append(shared[warp, h, at.valid(leads & (at < a.value_dim))].store(summed))
        # all lanes have the same highest and sum, and all may store them
        stores.append(shared[warp, h, a.value_dim].store(highest))
        stores.append(shared[warp, h, a.value_dim + 1].store(_exchange(found("total", h) * fade, far, device, _add)))
    shared = shared.after(UOp.group(*stores))

    threads, results = warps * WARP, heads * a.value_dim
    more = UOp.range(-(-results // threads), 4, AxisType.LOOP)
    at = more * threads + warp * WARP + lane
    real = at < results
    safe = at if int(at.vmax) < results else at.minimum(results - 1)
    head, place = safe // a.value_dim, safe % a.value_dim
    highest = UOp.const(EMPTY, dtypes.float32)
    for i in range(warps):
        highest = highest.maximum(shared[i, head, a.value_dim])
    fades = [(shared[i, head, a.value_dim] - highest).exp2() for i in range(warps)]
    whole = added([shared[i, head, a.value_dim + 1] * fades[i] for i in range(warps)])
    scale, lse = a.finish(args, split, first + head, highest, whole)
    mean = added([shared[i, head, place] * fades[i] for i in range(warps)]) * scale
    put = UOp.group(
        args["out"][split, first + head, place.valid(real)].store(mean.cast(DTYPES[w.out_dtype])),
        args["lse"][split, (first + head).valid(real & (place < 1))].store(lse),
    )
    return put.end(more).end(split, block, warp, lane)
