"""A workgroup whose members meet in local memory, or one thread in their place. Knows no op.

Work is given out in steps: `each(count, work)` has members do the pieces 0 .. count - 1 side by side, and what comes
next finds all of them done: tinygrad puts a barrier between a store to local memory and a load that comes after it. One
thread keeps the same arrays in its own memory and does the pieces in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinygrad import UOp, dtypes

from kernels.tinygrad.uops import AddrSpace, AxisType, DType, Ops

PARTS = 16
_SLOT = 400  # tinygrad numbers its own arrays from 0
_RANGE = 20

Store = tuple[UOp, tuple[UOp, ...], UOp]
"""(array, indices, value)."""


def number(value: int) -> UOp:
    """As an index."""
    return UOp.const(value, dtypes.weakint)


def loop(size: int, name: int, kind: AxisType = AxisType.REDUCE) -> UOp:
    """A range; a loop of one is the constant 0."""
    return UOp.range(size, name, kind) if size > 1 else number(0)


def reduce(op: Ops, value: UOp, *loops: UOp) -> UOp:
    """`value` summed (Ops.ADD) or its maximum (Ops.MAX) over `loops`."""
    ranges = [at for at in loops if at.op is Ops.RANGE]
    return UOp(Ops.REDUCE, src=(value, *ranges), arg=(op, 0)) if ranges else value


def _parts(count: int, threads: int) -> int:
    """Many numbers are first made one a member, which then are made few."""
    return min(count, threads if count > 2 * threads else PARTS)


def shared_items(count: int, threads: int) -> int:
    """Items of local memory that `Team.shared` takes."""
    parts = _parts(count, threads)
    return parts + (shared_items(parts, threads) if parts > 2 * PARTS else 0)


class Team:
    """`member`: the range of the workgroup's threads; None for one thread. `outside`: the loops around the work."""

    def __init__(self, threads: int, member: UOp | None, *outside: UOp) -> None:
        self.threads, self.member = threads, member
        self.now: tuple[UOp, ...] = outside if member is None else (*outside, member)
        self._arrays = self._ranges = 0

    def array(self, size: int, dtype: DType = dtypes.float32) -> UOp:
        self._arrays += 1
        space = AddrSpace.REG if self.member is None else AddrSpace.LOCAL
        return UOp.placeholder((size,), dtype, slot=_SLOT + self._arrays, addrspace=space)

    def range(self, size: int, kind: AxisType = AxisType.REDUCE) -> UOp:
        self._ranges += 1
        return loop(size, _RANGE + self._ranges, kind)

    def each(self, count: int, work: Callable[[UOp], Sequence[Store]]) -> None:
        """work(i) for every i < count, which must read nothing that it stores."""
        turns = count if self.member is None else -(-count // self.threads)
        turn = self.range(turns, AxisType.LOOP)
        i = turn if self.member is None else turn * self.threads + self.member
        # members without work do the last piece again, and store what is there. Not under a condition: where a store's
        # place is computed from memory, tinygrad 0.14 assumes its condition in what came before as well
        i = i if int(i.vmax) < count else i.minimum(count - 1)
        # after what was done before, even where the value doesn't depend on it
        done = [self.read(array)[indices].store(value) for array, indices, value in work(i)]
        self.now = (UOp.group(*done).end(turn) if turn.op is Ops.RANGE else UOp.group(*done),)

    def read(self, array: UOp) -> UOp:
        """The array as it is now."""
        return array.after(*self.now)

    def over(self, op: Ops, count: int, value: Callable[[UOp], UOp]) -> UOp:
        """value(i) reduced over i < count, by every member for itself."""
        i = self.range(count)
        return reduce(op, value(i), i)

    def shared(self, op: Ops, count: int, value: Callable[[UOp], UOp], none: float) -> Callable[[], UOp]:
        """value(i) reduced over i < count in parts, which members share out; `none` changes no result. What comes back
        reads it."""
        parts = _parts(count, self.threads)
        size, found = -(-count // parts), self.array(parts)

        def part(p: UOp) -> list[Store]:
            def at(step: UOp) -> UOp:
                i = step * parts + p
                return value(i) if count % parts == 0 else (i < count).where(value(i.minimum(count - 1)), none)

            return [(found, (p,), self.over(op, size, at))]

        self.each(parts, part)
        done = self.read(found)
        if parts > 2 * PARTS:
            return self.shared(op, parts, lambda p: done[p], none)
        return lambda: self.over(op, parts, lambda p: done[p])
