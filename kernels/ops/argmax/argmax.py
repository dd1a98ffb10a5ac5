"""`argmax`: out int32 [m, 1], the index of the largest of logits [m, n], of equal ones the lowest. NaN is the smallest.

n = k. Variants:
    plain   loops for opts to schedule, in two passes: 0 row, 1 the maximum, 2 the first place where it is; `lanes`
            maxima side by side
    team    a workgroup of `threads` a row, in one pass: each keeps its best `words` in registers, then they meet in
            local memory
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Schedule, Workload
from kernels import backends
from kernels.backends import Needs
from kernels.formats.unpack import float32
from kernels.ops.argmax.spec import ArgMax
from kernels.ops.kit.workgroup import PARTS, Store, Team, loop, number, reduce
from kernels.ops.linear import epilogue
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Op, Operand, Params, Variant, fitting
from kernels.ops.topk.routing import NEVER, before, clean
from kernels.tinygrad.uops import AddrSpace, AxisType, Ops

_SLOT = 600  # tinygrad numbers its own arrays from 0


def _check(w: Workload) -> None:
    epilogue.check(w, ("none",))
    ArgMax.from_workload(w)


def _logit(args: Args, row: UOp, column: UOp) -> UOp:
    return clean(float32(args["logits"][row, column]))


def _plain(w: Workload, params: Params, args: Args, device: str) -> UOp:
    lanes, row = params["lanes"], UOp.range(w.m, 0)
    first, second = (loop(w.n // lanes, i) for i in (1, 2))
    top = UOp.const(NEVER, dtypes.float32)
    for lane in range(lanes):
        top = top.maximum(reduce(Ops.MAX, _logit(args, row, first * lanes + lane), first))
    # the lowest index is the most that remain
    left = UOp.const(0, dtypes.int32)
    for lane in range(lanes):
        column = second * lanes + lane
        remain = (w.n - column).cast(dtypes.int32)
        left = left.maximum(reduce(Ops.MAX, _logit(args, row, column).eq(top).where(remain, 0), second))
    return args["out"][row, number(0)].store(w.n - left).end(row)


def _team(w: Workload, params: Params, args: Args, device: str) -> UOp:
    threads, words = params["threads"], params["words"]
    row, member = UOp.range(w.m, 0, AxisType.GLOBAL), UOp.range(threads, 1, AxisType.LOCAL)
    turn = UOp.range(-(-w.n // (threads * words)), 2, AxisType.REDUCE)
    best = UOp.placeholder((words,), dtypes.float32, _SLOT, AddrSpace.REG)
    places = UOp.placeholder((words,), dtypes.int32, _SLOT + 1, AddrSpace.REG)
    none = [(best, UOp.const(NEVER, dtypes.float32)), (places, UOp.const(0, dtypes.int32))]
    ready = UOp.group(*[array.after(row, member)[i].store(v) for array, v in none for i in range(words)])
    stores = []
    for i in range(words):
        column = (turn * threads + member) * words + i
        # past the last it is the last again, which does not go before itself
        column = column if int(column.vmax) < w.n else column.minimum(w.n - 1)
        value, old, place = _logit(args, row, column), best.after(ready, turn), places.after(ready, turn)
        ahead = value > old[i].load()
        stores.append(old[i].store(ahead.where(value, old[i].load())))
        stores.append(place[i].store(ahead.where(column.cast(dtypes.int32), place[i].load())))
    done = UOp.group(*stores).end(turn)

    value, id_ = best.after(done)[0].load(), places.after(done)[0].load()
    for i in range(1, words):
        other, other_id = best.after(done)[i].load(), places.after(done)[i].load()
        ahead = before(other, other_id, value, id_)
        value, id_ = ahead.where(other, value), ahead.where(other_id, id_)
    crew = Team(threads, member, done)
    values, ids = crew.array(threads), crew.array(threads, dtypes.int32)
    crew.each(threads, lambda i: [(values, (i,), value), (ids, (i,), id_)])
    parts = min(PARTS, threads)
    part_values, part_ids = crew.array(parts), crew.array(parts, dtypes.int32)

    def first(values: UOp, ids: UOp, start: UOp, count: int) -> tuple[UOp, UOp]:
        """The largest of `count` values and the lowest id that has it."""
        values, ids = crew.read(values), crew.read(ids)
        top = crew.over(Ops.MAX, count, lambda i: values[start + i])
        left = crew.over(Ops.MAX, count, lambda i: values[start + i].eq(top).where(w.n - ids[start + i], 0))
        return top, w.n - left

    def part(p: UOp) -> list[Store]:
        top, id_ = first(values, ids, p * (threads // parts), threads // parts)
        return [(part_values, (p,), top), (part_ids, (p,), id_)]

    crew.each(parts, part)
    crew.each(1, lambda i: [(args["out"], (row, i), first(part_values, part_ids, number(0), parts)[1])])
    return UOp.group(*crew.now).end(row, member)


def _plain_params(w: Workload) -> tuple[Params, ...]:
    return tuple({"lanes": lanes} for lanes in (8, 4, 2, 1) if w.n % lanes == 0)


def _team_params(w: Workload) -> tuple[Params, ...]:
    return tuple(
        {"threads": threads, "words": words}
        for words in (4, 2, 1, 8)
        for threads in (1024, 512, 256, 128, 64, 32)
        if threads * words < 2 * w.n or threads == 32
    )


def _team_needs(w: Workload, params: Params) -> Needs:
    """A value and an id of every thread, and of every part."""
    return Needs(params["threads"], 8 * (params["threads"] + min(PARTS, params["threads"])))


def _variants(w: Workload) -> dict[str, Variant]:
    _check(w)
    return {
        "plain": Variant(_plain, _plain_params),
        "team": Variant(_team, _team_params, _team_needs, schedulable=False),
    }


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, 1], logits [m, n]."""
    _check(w)
    return (
        Operand("out", (w.m, 1), DTYPES["int32"], OUT),
        Operand("logits", (w.m, w.n), DTYPES[w.x_dtype], INPUT),
    )


def _choices(w: Workload, device: str) -> tuple[Schedule, ...]:
    """One workgroup reads a whole vocabulary: of as many threads as keep its loads under way. A CPU fills its vector
    registers."""
    found = []
    if team := fitting(_variants(w), w, backends.find(device)).get("team"):
        for threads in (512, 256):
            params = min(team.params(w), key=lambda p: (abs(p["threads"] - threads), p["words"]))
            found.append(Schedule("team", tuple(sorted(params.items())), ()))
    lanes = _plain_params(w)[0]["lanes"]
    return (*found, Schedule("plain", (("lanes", lanes),), ()))


OP = Op(
    name="argmax",
    spec=ArgMax,
    variants=_variants,
    operands=_operands,
    plain=lambda w: (Schedule("plain", (("lanes", 1),), None),),
    choices=_choices,
    module=__name__,
    products=lambda w: w.m * w.n,
)
