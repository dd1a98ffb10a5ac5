"""Work that the threads of a host share out: a launch's slices, each with several pieces in turn."""

from __future__ import annotations

from tinygrad import UOp

from kernels.backends import MOST_SLICES
from kernels.ops.kit.loops import constant
from kernels.tinygrad.uops import AxisType


def divisors(n: int, most: int) -> tuple[int, ...]:
    """The divisors of n that are at most `most`, the largest first."""
    return tuple(d for d in range(min(n, most), 0, -1) if n % d == 0)


def even(count: int) -> tuple[int, ...]:
    """The numbers of slices that share `count` pieces of work evenly, the fewest first."""
    return divisors(count, MOST_SLICES)[::-1]


def pieces(count: int, slices: int, number: int = 0) -> tuple[UOp, list[UOp]]:
    """The piece of work, and the loops over all `count` pieces, which are given out to `slices` slices. Where `slices`
    does not divide `count`, the last pieces are those beyond it. number: that of the first loop."""
    each, piece, loops = -(-count // slices), constant(0), []
    if slices > 1:
        loops.append(UOp.range(slices, number, AxisType.THREAD))
        piece = loops[0] * each
    if each > 1:
        loops.append(UOp.range(each, number + 1, AxisType.LOOP))
        piece = piece + loops[-1]
    return piece, loops


def ended(done: UOp, loops: list[UOp]) -> UOp:
    """`done` for every value of the loops, the last of which is the innermost."""
    for loop in reversed(loops):
        done = done.end(loop)
    return done
