"""`rmsnorm`: out[m, n] = x * rsqrt(mean of x^2 + eps) * weight, and `rmsnorm_add`: that plus a residual, in one launch.

Variants:
    plain   loops for opts to schedule: 0 row, 1 column, 2 the sum over a row, with `lanes` accumulators
    team    a workgroup of `threads` threads for each row, which meet in local memory
    warp    a workgroup of `warps` warps for each row: the lanes keep the row in registers, each in runs of `words`
            columns, and add up by shuffles
"""

from __future__ import annotations

from dataclasses import dataclass

from tinygrad import UOp

from db.records import Schedule, Workload
from kernels.backends import Needs
from kernels.formats.unpack import float32
from kernels.ops.kit.allot import Allotter
from kernels.ops.kit.loops import loop, reduce_add, total
from kernels.ops.kit.warp import WARP, warp_sum
from kernels.ops.kit.workgroup import Workgroup, shared_items
from kernels.ops.linear.loops import ACCUMULATORS
from kernels.ops.norm import defaults
from kernels.ops.norm.spec import RmsNorm, RmsNormAdd
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Args, Op, Operand, Params, Variant
from kernels.tinygrad.uops import AxisType, Ops

_MAX_COLUMNS = 32  # columns of a row that a lane keeps in registers


@dataclass(frozen=True)
class _Norm:
    """The norm is over `rows` rows of `width` columns, where `heads` of them are one row of x."""

    w: Workload
    rows: int
    width: int
    heads: int
    eps: float

    @staticmethod
    def of(w: Workload) -> _Norm:
        """Raises KernelError for a workload without a kernel."""
        s = RmsNorm.from_workload(w)
        return _Norm(w, w.m * s.heads, w.n // s.heads, s.heads, s.eps)

    def at(self, row: UOp, column: UOp) -> tuple[UOp, UOp]:
        return row // self.heads, row % self.heads * self.width + column

    def x(self, args: Args, row: UOp, column: UOp) -> UOp:
        return float32(args["x"][self.at(row, column)])

    def store(self, args: Args, row: UOp, column: UOp, value: UOp, squares: UOp) -> UOp:
        """The store of `value` after the norm. squares: the sum of squares over its row."""
        value = value * (squares * (1 / self.width) + self.eps).sqrt().reciprocal() * args["weight"][column]
        if self.w.op == "rmsnorm_add":
            value = float32(args["residual"][self.at(row, column)]) + value
        return args["out"][self.at(row, column)].store(value.cast(DTYPES[self.w.out_dtype]))


def _loops(w: Workload, params: Params, args: Args, device: str) -> UOp:
    r, accumulators = _Norm.of(w), params["lanes"]
    row, column = UOp.range(r.rows, 0), UOp.range(r.width, 1)
    step = loop(r.width // accumulators, 2)
    values = [r.x(args, row, step * accumulators + i) for i in range(accumulators)]
    squares = total([reduce_add(v * v, step) for v in values])
    return r.store(args, row, column, r.x(args, row, column), squares).end(row, column)


def _workgroup(w: Workload, params: Params, args: Args, device: str) -> UOp:
    r, threads = _Norm.of(w), params["threads"]
    row, member = UOp.range(r.rows, 0, AxisType.GLOBAL), UOp.range(threads, 1, AxisType.LOCAL)
    wg = Workgroup(threads, member, row)

    def square(column: UOp) -> UOp:
        x = r.x(args, row, column)
        return x * x

    squares = wg.shared(Ops.ADD, r.width, square, 0.0)
    turn = wg.allot.loop(-(-r.width // threads), AxisType.LOOP)
    column = turn * threads + member
    column = column if r.width % threads == 0 else column.minimum(r.width - 1)
    stored = r.store(args, row, column, r.x(args, row, column), squares())
    return (stored.end(turn) if turn.op is Ops.RANGE else stored).end(row, member)


def _warp(w: Workload, params: Params, args: Args, device: str) -> UOp:
    r, warps, words = _Norm.of(w), params["warps"], params["words"]
    row = UOp.range(r.rows, 0, AxisType.GLOBAL)
    member, lane = UOp.range(warps, 1, AxisType.LOCAL), UOp.range(WARP, -1, AxisType.WARP)
    columns = [
        ((turn * warps + member) * WARP + lane) * words + i
        for turn in range(_turns(r, params))
        for i in range(words)
    ]  # fmt: skip
    # columns beyond the end are clamped to the last, which is read and stored again, but not added again
    safe = [c if int(c.vmax) < r.width else c.minimum(r.width - 1) for c in columns]
    values = [r.x(args, row, c) for c in safe]
    squares = [v * v for v in values]
    squares = [
        s if c is there else (c < r.width).where(s, 0.0) for s, c, there in zip(squares, columns, safe, strict=True)
    ]
    found = warp_sum(total(squares), device)
    if warps > 1:
        shared = Allotter().local(warps)
        shared = shared.after(shared[member].store(found))
        found = total([shared[i] for i in range(warps)])
    stores = [r.store(args, row, c, v, found) for c, v in zip(safe, values, strict=True)]
    return UOp.group(*stores).end(row, member, lane)


def _turns(r: _Norm, params: Params) -> int:
    """Number of runs of columns that a lane has."""
    return -(-r.width // (WARP * params["warps"] * params["words"]))


def _loops_params(w: Workload) -> tuple[Params, ...]:
    return tuple({"lanes": accumulators} for accumulators in ACCUMULATORS if _Norm.of(w).width % accumulators == 0)


def _workgroup_params(w: Workload) -> tuple[Params, ...]:
    """`threads` of a workgroup: at least 32, and at most as many as there are columns."""
    return tuple({"threads": n} for n in (256, 512, 1024, 128, 64, 32) if n <= max(_Norm.of(w).width, 32))


def _warp_params(w: Workload) -> tuple[Params, ...]:
    r = _Norm.of(w)
    return tuple(
        found
        for words in (4, 2, 1, 8)
        for warps in (8, 4, 16, 32, 2, 1)
        if _turns(r, found := {"warps": warps, "words": words}) * words <= _MAX_COLUMNS
        and (r.width >= WARP * warps * words or words == warps == 1)
        and r.width % words == 0
    )


def _workgroup_needs(w: Workload, params: Params) -> Needs:
    return Needs(params["threads"], 4 * shared_items(_Norm.of(w).width, params["threads"]))


def _warp_needs(w: Workload, params: Params) -> Needs:
    return Needs(WARP * params["warps"], 4 * params["warps"] if params["warps"] > 1 else 0, WARP)


def _variants(w: Workload) -> dict[str, Variant]:
    _Norm.of(w)
    return {
        "plain": Variant(_loops, _loops_params),
        "team": Variant(_workgroup, _workgroup_params, _workgroup_needs, schedulable=False),
        "warp": Variant(_warp, _warp_params, _warp_needs, schedulable=False),
    }


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, n], weight [n / heads], x [m, n], then the residual [m, n] of `rmsnorm_add`."""
    r, x_dtype, out_dtype = _Norm.of(w), DTYPES[w.x_dtype], DTYPES[w.out_dtype]
    residual = (Operand("residual", (w.m, w.n), out_dtype, INPUT),) if w.op == "rmsnorm_add" else ()
    return (
        Operand("out", (w.m, w.n), out_dtype, OUT),
        Operand("weight", (r.width,), DTYPES["float32"], WEIGHT),
        Operand("x", (w.m, w.n), x_dtype, INPUT),
        *residual,
    )


def _op(spec: type[RmsNorm]) -> Op:
    return Op(
        spec=spec,
        variants=_variants,
        operands=_operands,
        heuristic_baselines=lambda w: (Schedule("plain", (("lanes", 1),), None),),
        default_schedules=defaults.rmsnorm,
        module=__name__,
        products=lambda w: 2 * w.m * w.n,
    )


rmsnorm, rmsnorm_add = map(_op, (RmsNorm, RmsNormAdd))
