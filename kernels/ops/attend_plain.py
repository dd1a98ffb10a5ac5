"""Attention of one token as plain loops, for opts to schedule: every sum and maximum is an Ops.REDUCE.

Two passes over a split's positions: the highest score, then the weighted sums. The scores are computed again in the
second pass, and for every run of `columns` values; `rows` positions form the inner loop, which opts can divide.
"""

from __future__ import annotations

from tinygrad import UOp

from db.records import Workload
from kernels.op import DTYPES, Args, Params
from kernels.ops.attend import Attention, chance, divisors, reduce_add, reduce_max
from kernels.ops.team import loop


def plain_params(a: Attention) -> tuple[Params, ...]:
    columns = sorted({d for d in divisors(a.value_dim, 32) if d in (1, 2, 4, 8, 16, 32)}, key=lambda c: abs(c - 8))
    return tuple({"columns": c, "rows": rows} for c in columns for rows in (16, 32, 64, 4))


def plain(w: Workload, a: Attention, params: Params, args: Args) -> UOp:
    """Loops: 0 split, 1 head, 2 run of columns; 3, 4 positions and 5 the dot product of the first pass, 6, 7, 8 those
    of the second."""
    columns, rows = params["columns"], params["rows"]
    split, head = UOp.range(a.splits, 0), UOp.range(a.heads, 1)
    part = UOp.range(a.value_dim // columns, 2)
    kv_head = head // a.group

    def scores(base: int) -> tuple[UOp, UOp, tuple[UOp, ...]]:
        """A score, its position, and the loops over positions."""
        turn, turns = a.turns(rows, base)
        row, column = loop(rows, base + 1), loop(a.head_dim, base + 2)
        position, valid = a.at(split, turn * rows + row)
        dot = reduce_add(a.q(args, head, column) * a.k(args, kv_head, position, column), column)
        return a.score(dot, valid), position, (*turns, row)

    score, _, loops = scores(3)
    top = reduce_max(score, *loops)
    score, position, loops = scores(6)
    weight = chance(score, top)
    scale, lse = a.finish(args, split, head, top, reduce_add(weight, *loops))
    stores = [args["lse"][split, head].store(lse)]  # the same for all runs of columns
    for i in range(columns):
        column = part * columns + i
        mean = reduce_add(weight * a.v(args, kv_head, position, column), *loops) * scale
        stores.append(args["out"][split, head, column].store(mean.cast(DTYPES[w.out_dtype])))
    return UOp.group(*stores).end(split, head, part)
