"""Attention as plain loops, for opts to schedule: every sum and maximum is an Ops.REDUCE.

Two passes over a split's positions: the highest score, then the weighted sums. The scores are computed again in the
second pass, and for every run of `columns` values; `rows` positions form the inner loop, which opts can divide. Of many
tokens each passes over what the last one sees.
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.ops.attention.attend import Attention, Span, chance, divisors, reduce_add, reduce_max
from kernels.ops.kit.workgroup import loop
from kernels.ops.op import DTYPES, Args, Params


def plain_params(a: Attention) -> tuple[Params, ...]:
    columns = sorted({d for d in divisors(a.value_dim, 32) if d in (1, 2, 4, 8, 16, 32)}, key=lambda c: abs(c - 8))
    return tuple({"columns": c, "rows": rows} for c in columns for rows in (16, 32, 64, 4))


def plain(w: Workload, a: Attention, params: Params, args: Args) -> UOp:
    """Loops: 0 split or token, 1 head, 2 run of columns; 3, 4 positions and 5 the dot product of the first pass, 6, 7,
    8 those of the second."""
    columns, rows = params["columns"], params["rows"]
    outer, head = UOp.range(a.tokens if a.many else a.splits, 0), UOp.range(a.heads, 1)
    part, none = UOp.range(a.value_dim // columns, 2), UOp.const(0, dtypes.weakint)
    split, token = (none, outer) if a.many else (outer, none)
    span, kv_head = Span(a, split, none, a.tokens), head // a.group

    def scores(base: int) -> tuple[UOp, UOp, tuple[UOp, ...]]:
        """A score, its position, and the loops over positions."""
        turn, turns = span.turns(rows, base)
        row, column = loop(rows, base + 1), loop(a.head_dim, base + 2)
        position, inside = span.at(turn * rows + row)
        dot = reduce_add(a.q(args, token, head, column) * a.k(args, kv_head, position, column), column)
        return a.score(dot, span.seen(position, inside, token)), position, (*turns, row)

    score, _, loops = scores(3)
    top = reduce_max(score, *loops)
    score, position, loops = scores(6)
    weight = chance(score, top)
    scale, lse = a.finish(args, split, head, top, reduce_add(weight, *loops))
    stores = [] if a.many else [args["lse"][split, head].store(lse)]  # the same for all runs of columns
    for i in range(columns):
        column = part * columns + i
        mean = reduce_add(weight * a.v(args, kv_head, position, column), *loops) * scale
        stores.append(args["out"][outer, head, column].store(mean.cast(DTYPES[w.out_dtype])))
    return UOp.group(*stores).end(outer, head, part)
