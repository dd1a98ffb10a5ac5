"""x in a thread block's local memory: loaded once for all warps, where each would load it for itself.

A lane's words lie apart, and so does the x that belongs to them: a warp's load of it touches as many cache lines as it
has lanes. Local memory has no lines; padding keeps lanes whose x is a group of 64 columns apart out of each other's
banks. It costs a barrier, behind which all warps wait for x before they load a weight.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes

from kernels.ops.kit.warp_sum import WARP, accumulate, warp_sum
from kernels.ops.linear.dot import Index, Rows, total
from kernels.ops.op import Args
from kernels.tinygrad.uops import AddrSpace, AxisType

GROUP, PAD = 64, 4
_SLOT = 600
_LOOPS = 60
_EACH = 4  # columns that a thread takes at a time


def _room(r: Rows) -> int:
    """Items of a row of x."""
    return -(-r.k // GROUP) * (GROUP + PAD)


def divides(r: Rows) -> bool:
    """Whether threads can share out the columns of x."""
    return r.k % _EACH == 0


def nbytes(r: Rows, warps: int) -> int:
    """Of local memory: every row of x that a block needs, and each warp's sum of squares."""
    return 4 * r.loops[0] * (r.summed * _room(r) + warps)


class Stage:
    """The x of all tokens (`indices`), as every thread finds it once all have stored theirs. `outside`: the block's
    ranges, of which the last two are those of its warps and lanes."""

    def __init__(
        self, r: Rows, args: Args, indices: Sequence[Index], warps: int, outside: tuple[UOp, ...], device: str
    ) -> None:
        *_, member, lane = outside
        self._room, self._summed, self._warps = _room(r), r.summed, warps
        count, threads = r.summed * r.k // _EACH, warps * WARP
        xs = UOp.placeholder((len(indices) * r.summed * self._room,), dtypes.float32, _SLOT, AddrSpace.LOCAL)
        parts = UOp.placeholder((len(indices) * warps,), dtypes.float32, _SLOT + 1, AddrSpace.LOCAL)

        def places(loop: UOp) -> list[tuple[UOp, UOp]]:
            """(row of x, column) of a thread's turn; beyond the last they are the last again."""
            at = loop * threads + member * WARP + lane
            at = (at if count % threads == 0 else at.minimum(count - 1)) * _EACH
            return [(at // r.k, at % r.k + i) for i in range(_EACH)]

        turn = UOp.range(-(-count // threads), _LOOPS, AxisType.LOOP)
        here = xs.after(*outside)
        stores = [
            here[self._at(token, row, column)].store(r.x(args, index if r.summed == 1 else (*index, row), column))
            for token, index in enumerate(indices)
            for row, column in places(turn)
        ]
        done = [UOp.group(*stores).end(turn)]
        if r.squares is not None:
            loop = UOp.range(-(-count // threads), _LOOPS + 1, AxisType.REDUCE)
            squared = [[r.squares(args, index, column) for _, column in places(loop)] for index in indices]
            values = [total([v * v for v in each]) for each in squared]
            if count % threads:
                its = loop * threads + member * WARP + lane < count
                values = [its.where(value, 0.0) for value in values]
            found = [warp_sum(value, device) for value in accumulate(values, loop, outside, _SLOT + 2)]
            own = parts.after(*outside)
            done += [own[token * warps + member].store(value) for token, value in enumerate(found)]
        together = UOp.group(*done)
        self._xs, self._parts = xs.after(together), parts.after(together)

    def _at(self, token: int, row: UOp | int, column: UOp) -> UOp:
        return column + column // GROUP * PAD + (row + token * self._summed) * self._room

    def x(self, token: int, row: UOp | int, column: UOp) -> UOp:
        """row: of those that are summed over."""
        return self._xs[self._at(token, row, column)]

    def squares(self, token: int) -> UOp:
        """The sum of a token's squares."""
        return total([self._parts[token * self._warps + warp] for warp in range(self._warps)])
