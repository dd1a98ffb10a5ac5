"""`quantise`: rows of float activations as blocks of int8 (`kernels.ops.q8.spec`), with or without RMSNorm before.

Loops for opts to schedule: 0 the rows, 1 the blocks of a row. With a norm the sum of squares of a row is made once.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.kit.loops import largest, loop, reduce_add, total
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Args, Op, Operand, Params, Variant
from kernels.ops.q8 import defaults
from kernels.ops.q8.spec import BLOCK, HALF_SUM, SCALE, SMALLEST, SUM, Quantise, q8_shape, spec_of

_INFINITY = 0x7F800000
# A float32 of this size has no bits below 1: adding it rounds a small number to the nearest whole one, ties to even,
# which is then in the lowest bits.
_ROUNDS = 1.5 * 2**23
_ROUNDS_BITS = 0x4B400000


def _kernel(w: Workload, params: Params, args: Args, device: str) -> UOp:
    s = spec_of(Quantise, w)
    row, block = loop(w.m * s.rows, 0), loop(s.n // BLOCK, 1)
    values = [float32(args["x"][row, block * BLOCK + i]) for i in range(BLOCK)]
    if s.eps is not None:
        inverse = _inverse_rms(s, args, row)
        values = [v * args["norm"][block * BLOCK + i] * inverse for i, v in enumerate(values)]
    stores = [args["out"][row, block, i].store(word) for i, word in enumerate(_words(values))]
    return UOp.group(*stores).end(*(at for at in (row, block) if at.op is not UOp.const(0, dtypes.weakint).op))


def _inverse_rms(s: Quantise, args: Args, row: UOp) -> UOp:
    """1 / sqrt(mean of squares + eps), with a sum for each column of a block."""
    step = loop(s.n // BLOCK, 2)
    values = [float32(args["x"][row, step * BLOCK + i]) for i in range(BLOCK)]
    squares = total([reduce_add(v * v, step) for v in values])
    return (squares * (1.0 / s.n) + s.eps).sqrt().reciprocal()


def _words(values: Sequence[UOp]) -> list[UOp]:
    """The words of a block of values."""
    bits = largest([v.bitcast(dtypes.int32) & 0x7FFFFFFF for v in values])  # of NaN above those of infinity
    top = bits.bitcast(dtypes.float32)
    finite = bits < _INFINITY
    used = finite & (top >= SMALLEST)
    inverse = used.where(127.0 / used.where(top, 1.0), 0.0)
    scale = finite.where(used.where(top * (1 / 127), 0.0), float("nan"))
    # an infinity or a NaN times 0 is NaN, whose bits are no small number: such values are replaced
    rounded = [(finite.where(v, 0.0) * inverse + _ROUNDS).bitcast(dtypes.int32) for v in values]
    words = [total([(rounded[4 * i + j] & 255) << (8 * j) for j in range(4)]) for i in range(BLOCK // 4)]
    quants = [r - _ROUNDS_BITS for r in rounded]
    first = total(quants[: BLOCK // 2])
    whole = first + total(quants[BLOCK // 2 :])
    sums = {SCALE: scale, SUM: scale * whole.cast(dtypes.float32), HALF_SUM: scale * first.cast(dtypes.float32)}
    return [*words, *(sums[i].bitcast(dtypes.int32) for i in sorted(sums))]


def _variants(w: Workload) -> dict[str, Variant]:
    spec_of(Quantise, w)
    return {"blocks": Variant(_kernel, lambda w: ({},))}


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
    default_schedules=lambda w, variants, device: defaults.quantise(w),
    heuristic_baselines=lambda w: defaults.unscheduled("blocks"),
    module=__name__,
    products=lambda w: w.m * spec_of(Quantise, w).rows * w.n,
    tolerances={("blocks", "q8"): 1e-5},
)
