"""A workgroup whose threads meet in local memory, or a single thread in their place. Knows no op.

Work is given out in steps: in `each(count, work)` the threads do the pieces 0 .. count - 1 side by side. Every later
step finds all of them done, since tinygrad puts a barrier between a store to local memory and a load that comes after
it. A single thread keeps the same arrays in its registers and does the pieces in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinygrad import UOp, dtypes

from kernels.ops.kit.allot import Allotter
from kernels.ops.kit.loops import reduce
from kernels.ops.kit.masked_element import masked_element
from kernels.tinygrad.uops import AxisType, DType, Ops

PARTS = 16

Store = tuple[UOp, tuple[UOp, ...], UOp]
"""(array, indices, value)."""
Work = Callable[[UOp], Sequence[Store]]
"""What is stored by the i-th piece of a step."""


def _parts(count: int, threads: int) -> int:
    """Into how many parts a reduction over `count` values is divided. Many values are first reduced to one a thread."""
    return min(count, threads if count > 2 * threads else PARTS)


def shared_items(count: int, threads: int) -> int:
    """Items of local memory that `Workgroup.shared` takes."""
    parts = _parts(count, threads)
    return parts + (shared_items(parts, threads) if parts > 2 * PARTS else 0)


class Workgroup:
    """`member` is the range of the workgroup's `threads` threads; None for a single thread, which does all the work.
    `outside` are the loops around the work, `now` is what has been done so far. `allot` is the Allotter of the
    kernel."""

    def __init__(self, threads: int, member: UOp | None, *outside: UOp) -> None:
        self.allot, self.threads, self.member = Allotter(), threads, member
        self.now: tuple[UOp, ...] = outside if member is None else (*outside, member)
        self._arrays: set[UOp] = set()

    def array(self, *shape: int, dtype: DType = dtypes.float32) -> UOp:
        """An array that all threads share."""
        array = (self.allot.registers if self.member is None else self.allot.local)(*shape, dtype=dtype)
        self._arrays.add(array)
        return array

    def read(self, array: UOp) -> UOp:
        """The array as it is now."""
        return array.after(*self.now)

    def each(self, count: int, work: Work) -> None:
        """Does work(i) for every i < count, after all that was done before, even where a value does not depend on that.

        The work must not read what it stores: threads that are left over do the last piece again, and store the same
        once more. They do not store under a condition: where the place of a store is computed from memory, tinygrad
        0.14 takes the condition for granted in what came before, too.
        """
        self._do(count, work, lambda array, indices, _: self.read(array)[indices])

    def update(self, count: int, work: Work) -> None:
        """Does work(i) for every i < count. The work may read what it stores: threads that are left over store nothing.
        No place of a store may be computed from memory (see `each`).

        Outputs are stored as soon as their value is there. A value that is the same for all pieces is then stored once.
        """

        def element(array: UOp, indices: tuple[UOp, ...], inside: UOp | None) -> UOp:
            return masked_element(self.read(array) if array in self._arrays else array, indices, inside)

        self._do(count, work, element)

    def _do(self, count: int, work: Work, element: Callable[[UOp, tuple[UOp, ...], UOp | None], UOp]) -> None:
        turn = self.allot.loop(count if self.member is None else -(-count // self.threads), AxisType.LOOP)
        i = turn if self.member is None else turn * self.threads + self.member
        inside = None if int(i.vmax) < count else i < count
        pieces = work(i if inside is None else i.minimum(count - 1))
        done = [element(array, indices, inside).store(value) for array, indices, value in pieces]
        self.now = (UOp.group(*done).end(turn) if turn.op is Ops.RANGE else UOp.group(*done),)

    def repeat(self, loops: tuple[UOp, ...]) -> None:
        """Ends `loops`, which joined `now` earlier: what has been done since is done for each of their values.

        All threads must have read what the next turn overwrites, hence the barrier. Without it tinygrad 0.14 makes one
        that depends on loads of inner loops (codegen.add_war_barrier); these loops then seem not to have ended, and
        code lands in the wrong loop. For the same reason no piece of work that takes several turns reads and writes the
        same array.
        """
        done = UOp.group(*self.now)
        self.now = ((done if self.member is None or not loops else done.barrier()).end(*loops),)

    def over(self, op: Ops, count: int, value: Callable[[UOp], UOp]) -> UOp:
        """value(i) reduced by `op` over i < count, by every thread for itself."""
        i = self.allot.loop(count)
        return reduce(op, value(i), i)

    def shared(self, op: Ops, count: int, value: Callable[[UOp], UOp], none: float) -> Callable[[], UOp]:
        """value(i) reduced by `op` over i < count in parts, which the threads share out. `none` is a value that changes
        no result. Returns a function that reads the result."""
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
