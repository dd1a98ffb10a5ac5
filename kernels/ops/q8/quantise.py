"""`quantise`: rows of float activations as blocks of int8 (`kernels.ops.q8.spec`), with or without RMSNorm before.

The words of a block are a vector. With a norm the sum of squares of a row is made once. The parameter `slices` is into
how many slices the rows are cut; a kernel takes no opts.
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.backends import Needs
from kernels.ops.kit.loops import loop, reduce_add
from kernels.ops.kit.pieces import even, pieces
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Args, KernelError, Op, Operand, Params, Variant
from kernels.ops.q8 import defaults
from kernels.ops.q8.spec import BLOCK, WORDS, Quantise, q8_shape, spec_of
from kernels.ops.q8.vector import call, outer, ranges, text
from kernels.tinygrad.uops import AxisType


def _kernel(w: Workload, params: Params, args: Args, device: str) -> UOp:
    s = spec_of(Quantise, w)
    row, part = pieces(w.m * s.rows, params["slices"])
    block, word = outer(s.n // BLOCK, 2), UOp.range(WORDS, 3, AxisType.UPCAST)
    lane = word.cast(dtypes.int32)
    x = args["x"][row, block * BLOCK]
    if s.eps is None:
        value = text("v_part(v_block({0}), {1})", x, lane, dtype=dtypes.int32)
    else:
        norm, inverse = args["norm"][block * BLOCK], _inverse_rms(s, args, row)
        value = text("v_part(v_block({0}, {1}, {2}), {3})", x, norm, inverse, lane, dtype=dtypes.int32)
    return args["out"][row, block, word].store(value).end(*ranges(*part, block, word))


def _inverse_rms(s: Quantise, args: Args, row: UOp) -> UOp:
    """1 / sqrt(mean of squares + eps)."""
    step = loop(s.n // BLOCK, 4)
    squares = reduce_add(call("v_squares", args["x"][row, step * BLOCK]), step)
    return (squares * (1.0 / s.n) + s.eps).sqrt().reciprocal()


def _variants(w: Workload) -> dict[str, Variant]:
    s = spec_of(Quantise, w)
    if w.x_dtype != "float32":
        raise KernelError(f"{w.op} takes float32, saw {w.x_dtype}")
    params = tuple({"slices": count} for count in even(w.m * s.rows))
    return {"blocks": Variant(_kernel, lambda w: params, lambda w, p: Needs(prelude=True), schedulable=False)}


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out int32 [m * rows, n / BLOCK, WORDS], x [m * rows, x_row], norm [n] if there is one."""
    s = spec_of(Quantise, w)
    rows = w.m * s.rows
    return (
        Operand("out", q8_shape(rows, s.n), dtypes.int32, OUT),
        Operand("x", (rows, s.x_row), DTYPES[w.x_dtype], INPUT),
        *(() if s.eps is None else (Operand("norm", (s.n,), DTYPES["float32"], WEIGHT),)),
    )


OP = Op(
    spec=Quantise,
    variants=_variants,
    operands=_operands,
    default_schedules=lambda w, variants, device: defaults.quantise(variants["blocks"].params(w)),
    heuristic_baselines=lambda w: defaults.untuned("blocks"),
    module=__name__,
    products=lambda w: w.m * spec_of(Quantise, w).rows * w.n,
    tolerances={("blocks", "q8"): 1e-5},
)
