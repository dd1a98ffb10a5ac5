"""Attention as plain loops, for opts to schedule: every sum and maximum is an Ops.REDUCE.

A kernel passes over the positions of a split twice: first for the highest score, then for the weighted sums. The second
pass computes the scores again, once for every run of `columns` columns of the values. The inner loop has `rows`
positions, and opts can divide it. In a prompt every token passes over the positions that the last token sees.
"""

from __future__ import annotations

from tinygrad import UOp

from db.records import Workload
from kernels.ops.attention.attend import Attention, Span, chance, divisors
from kernels.ops.kit.loops import constant, loop, reduce_add, reduce_max
from kernels.ops.op import DTYPES, Args, Params


def loops_params(a: Attention) -> tuple[Params, ...]:
    columns = sorted({d for d in divisors(a.value_dim, 32) if d in (1, 2, 4, 8, 16, 32)}, key=lambda c: abs(c - 8))
    return tuple({"columns": c, "rows": rows} for c in columns for rows in (16, 32, 64, 4))


def loops(w: Workload, a: Attention, params: Params, args: Args) -> UOp:
    """The kernel. Loops: 0 split or token, 1 head, 2 run of columns. First pass: 3 and 4 positions, 5 dot product.
    Second pass: 6 and 7 positions, 8 dot product."""
    columns, rows = params["columns"], params["rows"]
    outer, head = UOp.range(a.tokens if a.prefill else a.splits, 0), UOp.range(a.heads, 1)
    part, none = UOp.range(a.value_dim // columns, 2), constant(0)
    split, token = (none, outer) if a.prefill else (outer, none)
    span, kv_head = Span(a, split, none, a.tokens), head // a.group

    def scores(base: int) -> tuple[UOp, UOp, tuple[UOp, ...]]:
        """A score, its position, and the loops over positions."""
        turn, turns = span.turns(rows, base)
        row, column = loop(rows, base + 1), loop(a.head_dim, base + 2)
        position, inside = span.at(turn * rows + row)
        dot = reduce_add(a.q(args, token, head, column) * a.k(args, kv_head, position, column), column)
        return a.score(dot, span.seen(position, inside, token)), position, (*turns, row)

    score, _, positions = scores(3)
    top = reduce_max(score, *positions)
    score, position, positions = scores(6)
    weight = chance(score, top)
    scale, lse = a.finish(args, split, head, top, reduce_add(weight, *positions))
    stores = [] if a.prefill else [args["lse"][split, head].store(lse)]  # the same for all runs of columns
    for i in range(columns):
        column = part * columns + i
        mean = reduce_add(weight * a.v(args, kv_head, position, column), *positions) * scale
        stores.append(args["out"][outer, head, column].store(mean.cast(DTYPES[w.out_dtype])))
    return UOp.group(*stores).end(outer, head, part)
