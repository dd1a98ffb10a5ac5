"""x in the local memory of a workgroup: loaded once for all warps. Otherwise each warp loads it for itself.

The words of neighbouring lanes lie apart, and so do the columns of x that belong to them: a warp's load of x touches
one cache line for each lane. Local memory has no cache lines. PAD items after every GROUP columns keep lanes that are a
group apart in different banks. The price is a barrier: all warps wait for x before they load a weight.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp

from kernels.ops.kit.allot import Allotter
from kernels.ops.kit.loops import total
from kernels.ops.kit.warp import WARP, accumulate, warp_sum
from kernels.ops.linear.dot import Index, RowDot
from kernels.ops.op import Args
from kernels.tinygrad.uops import AxisType

GROUP, PAD = 64, 4
_EACH = 4  # columns that a thread copies at a time


def _room(r: RowDot) -> int:
    """Items of a row of x in local memory, padding included."""
    return -(-r.k // GROUP) * (GROUP + PAD)


def divides(r: RowDot) -> bool:
    """Whether a row of x is whole runs of the columns that a thread copies at a time."""
    return r.k % _EACH == 0


def nbytes(r: RowDot, warps: int) -> int:
    """Bytes of local memory: every row of x that a workgroup needs, and the sum of squares of each warp and token."""
    return 4 * r.loops[0] * (r.summed * _room(r) + warps)


class SharedInput:
    """The x of all tokens, after every thread of the workgroup has stored its part. `indices`: the index of each token.
    `outside`: the loops of the grid, then the range of the warps and that of the lanes."""

    def __init__(
        self,
        r: RowDot,
        args: Args,
        indices: Sequence[Index],
        warps: int,
        outside: tuple[UOp, ...],
        device: str,
        allot: Allotter,
    ) -> None:
        *_, member, lane = outside
        self._room, self._summed, self._warps = _room(r), r.summed, warps
        count, threads = r.summed * r.k // _EACH, warps * WARP
        xs, parts = allot.local(len(indices) * r.summed * self._room), allot.local(len(indices) * warps)

        def places(loop: UOp) -> list[tuple[UOp, UOp]]:
            """The (row of x, column) pairs of a thread's turn. Those beyond the end are clamped to the last ones."""
            at = loop * threads + member * WARP + lane
            at = (at if count % threads == 0 else at.minimum(count - 1)) * _EACH
            return [(at // r.k, at % r.k + i) for i in range(_EACH)]

        turn = allot.range(-(-count // threads), AxisType.LOOP)
        here = xs.after(*outside)
        stores = [
            here[self._at(token, row, column)].store(r.x(args, index if r.summed == 1 else (*index, row), column))
            for token, index in enumerate(indices)
            for row, column in places(turn)
        ]
        done = [UOp.group(*stores).end(turn)]
        if r.squares is not None:
            loop = allot.range(-(-count // threads))
            squared = [[r.squares(args, index, column) for _, column in places(loop)] for index in indices]
            values = [total([v * v for v in each]) for each in squared]
            if count % threads:
                its = loop * threads + member * WARP + lane < count
                values = [its.where(value, 0.0) for value in values]
            found = [warp_sum(value, device) for value in accumulate(values, loop, outside, allot)]
            own = parts.after(*outside)
            done += [own[token * warps + member].store(value) for token, value in enumerate(found)]
        together = UOp.group(*done)
        self._xs, self._parts = xs.after(together), parts.after(together)

    def _at(self, token: int, row: UOp | int, column: UOp) -> UOp:
        return column + column // GROUP * PAD + (row + token * self._summed) * self._room

    def x(self, token: int, row: UOp | int, column: UOp) -> UOp:
        """float32. row: the index in the loop of `r.summed`, 0 where there is none."""
        return self._xs[self._at(token, row, column)]

    def squares(self, token: int) -> UOp:
        """The sum of the squares of a token."""
        return total([self._parts[token * self._warps + warp] for warp in range(self._warps)])
