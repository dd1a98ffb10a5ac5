"""`rmsnorm`: out[m, n] = x * rsqrt(mean of x^2 + eps) * weight, and `rmsnorm_add`: that plus a residual, in one launch.

Variants:
    plain   loops for opts to schedule: 0 row, 1 column, 2 the sum over a row; `lanes` sums of it side by side
    team    a workgroup of `threads` a row, which meet in local memory
    warp    a workgroup of `warps` a row, whose lanes keep it in registers, `words` columns in a run, and
            add up by shuffles
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinygrad import UOp, dtypes

from db.records import Opt, Schedule, Workload
from kernels import backends
from kernels.backends import Needs
from kernels.formats.unpack import float32
from kernels.ops.kit.warp_sum import WARP, warp_sum
from kernels.ops.kit.workgroup import Team, loop, reduce, shared_items
from kernels.ops.linear import epilogue
from kernels.ops.linear.dot import LANES, total
from kernels.ops.norm.spec import RmsNorm, RmsNormAdd
from kernels.ops.op import DTYPES, INPUT, OUT, WEIGHT, Args, Op, Operand, Params, Variant, fitting
from kernels.tinygrad.uops import AddrSpace, AxisType, Ops

_MAX_COLUMNS = 32  # of a row, that a lane keeps in registers
_SLOT = 500  # tinygrad numbers its own arrays from 0


@dataclass(frozen=True)
class _Rows:
    """`rows` of `width` columns, `heads` of which are one row of x."""

    w: Workload
    rows: int
    width: int
    heads: int
    eps: float

    @staticmethod
    def of(w: Workload) -> _Rows:
        """Raises KernelError for what there is no kernel for."""
        epilogue.check(w, ("none",))
        s = RmsNorm.from_workload(w)
        return _Rows(w, w.m * s.heads, w.n // s.heads, s.heads, s.eps)

    def at(self, row: UOp, column: UOp) -> tuple[UOp, UOp]:
        return row // self.heads, row % self.heads * self.width + column

    def x(self, args: Args, row: UOp, column: UOp) -> UOp:
        return float32(args["x"][self.at(row, column)])

    def store(self, args: Args, row: UOp, column: UOp, value: UOp, squares: UOp) -> UOp:
        """out = value normed; `squares` is the sum over its row."""
        value = value * (squares * (1 / self.width) + self.eps).sqrt().reciprocal() * args["weight"][column]
        if self.w.op == "rmsnorm_add":
            value = float32(args["residual"][self.at(row, column)]) + value
        return args["out"][self.at(row, column)].store(value.cast(DTYPES[self.w.out_dtype]))


def _plain(w: Workload, params: Params, args: Args, device: str) -> UOp:
    r, lanes = _Rows.of(w), params["lanes"]
    row, column = UOp.range(r.rows, 0), UOp.range(r.width, 1)
    step = loop(r.width // lanes, 2)
    values = [r.x(args, row, step * lanes + lane) for lane in range(lanes)]
    squares = total([reduce(Ops.ADD, v * v, step) for v in values])
    return r.store(args, row, column, r.x(args, row, column), squares).end(row, column)


def _team(w: Workload, params: Params, args: Args, device: str) -> UOp:
    r, threads = _Rows.of(w), params["threads"]
    row, member = UOp.range(r.rows, 0, AxisType.GLOBAL), UOp.range(threads, 1, AxisType.LOCAL)
    crew = Team(threads, member, row)

    def square(column: UOp) -> UOp:
        x = r.x(args, row, column)
        return x * x

    squares = crew.shared(Ops.ADD, r.width, square, 0.0)
    turn = crew.range(-(-r.width // threads), AxisType.LOOP)
    column = turn * threads + member
    column = column if r.width % threads == 0 else column.minimum(r.width - 1)
    stored = r.store(args, row, column, r.x(args, row, column), squares())
    return (stored.end(turn) if turn.op is Ops.RANGE else stored).end(row, member)


def _warp(w: Workload, params: Params, args: Args, device: str) -> UOp:
    r, warps, words = _Rows.of(w), params["warps"], params["words"]
    row = UOp.range(r.rows, 0, AxisType.GLOBAL)
    member, lane = UOp.range(warps, 1, AxisType.LOCAL), UOp.range(WARP, -1, AxisType.WARP)
    columns = [
        ((turn * warps + member) * WARP + lane) * words + i
        for turn in range(_turns(r, params))
        for i in range(words)
    ]  # fmt: skip
    # columns past the last are read and stored as the last again, but not added
    safe = [c if int(c.vmax) < r.width else c.minimum(r.width - 1) for c in columns]
    values = [r.x(args, row, c) for c in safe]
    squares = [v * v for v in values]
    squares = [
        s if c is there else (c < r.width).where(s, 0.0) for s, c, there in zip(squares, columns, safe, strict=True)
    ]
    found = warp_sum(total(squares), device)
    if warps > 1:
        shared = UOp.placeholder((warps,), dtypes.float32, _SLOT, AddrSpace.LOCAL)
        shared = shared.after(shared[member].store(found))
        found = total([shared[i] for i in range(warps)])
    stores = [r.store(args, row, c, v, found) for c, v in zip(safe, values, strict=True)]
    return UOp.group(*stores).end(row, member, lane)


def _turns(r: _Rows, params: Params) -> int:
    """Runs of columns that a lane has."""
    return -(-r.width // (WARP * params["warps"] * params["words"]))


def _plain_params(w: Workload) -> tuple[Params, ...]:
    return tuple({"lanes": lanes} for lanes in LANES if _Rows.of(w).width % lanes == 0)


def _team_params(w: Workload) -> tuple[Params, ...]:
    """No more threads than columns, but a warp at least."""
    return tuple({"threads": n} for n in (256, 512, 1024, 128, 64, 32) if n <= max(_Rows.of(w).width, 32))


def _warp_params(w: Workload) -> tuple[Params, ...]:
    r = _Rows.of(w)
    return tuple(
        found
        for words in (4, 2, 1, 8)
        for warps in (8, 4, 16, 32, 2, 1)
        if _turns(r, found := {"warps": warps, "words": words}) * words <= _MAX_COLUMNS
        and (r.width >= WARP * warps * words or words == warps == 1)
        and r.width % words == 0
    )


def _team_needs(w: Workload, params: Params) -> Needs:
    return Needs(params["threads"], 4 * shared_items(_Rows.of(w).width, params["threads"]))


def _warp_needs(w: Workload, params: Params) -> Needs:
    return Needs(WARP * params["warps"], 4 * params["warps"] if params["warps"] > 1 else 0, WARP)


def _variants(w: Workload) -> dict[str, Variant]:
    _Rows.of(w)
    return {
        "plain": Variant(_plain, _plain_params),
        "team": Variant(_team, _team_params, _team_needs, schedulable=False),
        "warp": Variant(_warp, _warp_params, _warp_needs, schedulable=False),
    }


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, n], weight [n / heads], x [m, n], then the residual [m, n] of `rmsnorm_add`."""
    r, x_dtype, out_dtype = _Rows.of(w), DTYPES[w.x_dtype], DTYPES[w.out_dtype]
    residual = (Operand("residual", (w.m, w.n), out_dtype, INPUT),) if w.op == "rmsnorm_add" else ()
    return (
        Operand("out", (w.m, w.n), out_dtype, OUT),
        Operand("weight", (r.width,), DTYPES["float32"], WEIGHT),
        Operand("x", (w.m, w.n), x_dtype, INPUT),
        *residual,
    )


def _nearest(params: Sequence[Params], **wanted: int) -> tuple[tuple[str, int], ...]:
    best = min(params, key=lambda p: sum(abs(p[name] - value) for name, value in wanted.items()))
    return tuple(sorted(best.items()))


def _choices(w: Workload, device: str) -> tuple[Schedule, ...]:
    """A workgroup a row, of as many threads as leave each about 8 columns: a launch this small is all waiting. A CPU
    fills its vector registers. No opts apply everywhere."""
    r, there, found = _Rows.of(w), fitting(_variants(w), w, backends.find(device)), []
    if "warp" in there:
        params = there["warp"].params(w)
        found.append(Schedule("warp", _nearest(params, warps=max(r.width // (8 * WARP), 1), words=4), ()))
    if "team" in there:
        params = there["team"].params(w)
        found.append(Schedule("team", _nearest(params, threads=min(max(r.width // 8, 32), 512)), ()))
    lanes = _nearest(_plain_params(w), lanes=1 if backends.find(device).threads else 16)
    upcasts = [Schedule("plain", lanes, (Opt("UPCAST", None, columns, "1"),)) for columns in (8, 4)]
    return (*found, *upcasts, Schedule("plain", lanes, ()))


def _op(spec: type[RmsNorm]) -> Op:
    return Op(
        name=spec.op,
        spec=spec,
        variants=_variants,
        operands=_operands,
        plain=lambda w: (Schedule("plain", (("lanes", 1),), None),),
        choices=_choices,
        module=__name__,
        products=lambda w: 2 * w.m * w.n,
    )


rmsnorm, rmsnorm_add = map(_op, (RmsNorm, RmsNormAdd))
