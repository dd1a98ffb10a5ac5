"""`host_combine`: what `flash_combine` does, for the threads of a host's processor. The lanes are columns.

out    [heads, v_head_dim]                 written
parts  [splits, heads, v_head_dim] float32
lse    [splits, heads] float32             log2 of the softmax denominator of each run
"""

from __future__ import annotations

import operator

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.ops.attention.spec import FlashCombine
from kernels.ops.host_attention import defaults
from kernels.ops.host_attention.arithmetic import exp2, tree
from kernels.ops.host_attention.spec import HostCombine
from kernels.ops.kit.pieces import ended, even, pieces
from kernels.ops.kit.workgroup import Store, Workgroup
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Op, Operand, Params, Variant
from kernels.tinygrad.uops import AxisType


def _build(w: Workload, params: Params, args: Args, device: str) -> UOp:
    """The kernel: each of `slices` slices takes some heads."""
    s = FlashCombine.from_workload(w)
    head, loops = pieces(s.heads, params["slices"])
    dim, runs = s.v_head_dim, s.splits
    wg = Workgroup(1, None, *loops)
    read, weights, sums = wg.read, wg.array(runs), wg.array(dim)
    wg.update(runs, lambda i: [(weights, (i,), args["lse"][i, head])])
    top = tree(UOp.maximum, [read(weights)[i] for i in range(runs)])
    peak = wg.array(1)
    wg.update(1, lambda i: [(peak, (i,), top)])
    wg.update(runs, lambda i: [(weights, (i,), exp2(read(weights)[i] - read(peak)[0]))])
    total = tree(operator.add, [read(weights)[i] for i in range(runs)])
    wg.update(1, lambda i: [(peak, (i,), total.reciprocal())])
    wg.update(dim, lambda c: [(sums, (c,), UOp.const(0.0, dtypes.float32))])
    run = wg.allot.range(runs, AxisType.LOOP)
    wg.now = (*wg.now, run)

    def add(c: UOp) -> list[Store]:
        return [(sums, (c,), read(sums)[c] + read(weights)[run] * args["parts"][run, head, c])]

    wg.update(dim, add)
    wg.repeat((run,))
    wg.update(dim, lambda c: [(args["out"], (head, c), (read(sums)[c] * read(peak)[0]).cast(DTYPES[w.out_dtype]))])
    return ended(UOp.group(*wg.now), loops)


def _params(w: Workload) -> tuple[Params, ...]:
    heads = FlashCombine.from_workload(w).heads
    return tuple({"slices": slices} for slices in even(heads))


def _variants(w: Workload) -> dict[str, Variant]:
    HostCombine.from_workload(w)
    return {"lanes": Variant(_build, _params, schedulable=False)}


def _operands(w: Workload) -> tuple[Operand, ...]:
    s = HostCombine.from_workload(w)
    return (
        Operand("out", (s.heads, s.v_head_dim), DTYPES[w.out_dtype], OUT),
        Operand("parts", (s.splits, s.heads, s.v_head_dim), dtypes.float32, INPUT),
        Operand("lse", (s.splits, s.heads), dtypes.float32, INPUT),
    )


OP = Op(
    spec=HostCombine,
    variants=_variants,
    operands=_operands,
    heuristic_baselines=lambda w: defaults.untuned(_params(w)),
    default_schedules=defaults.combine,
    module=__name__,
    products=lambda w: 2 * w.n * w.k,
)
