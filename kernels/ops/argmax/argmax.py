"""`argmax`: out int32 [m, 1], the index of the largest of logits [m, n], and of equal ones the lowest index. NaN counts
as the smallest.

n = k. Variants:
    plain   loops for opts to schedule, in two passes: 0 row, 1 the maximum, 2 the first index that has it; `lanes`
            accumulators for each
    team    a workgroup of `threads` threads for each row, in one pass: each thread keeps `words` candidates in
            registers, then the threads meet in local memory
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Schedule, Workload
from kernels.backends import Needs
from kernels.formats.unpack import float32
from kernels.ops.argmax import defaults
from kernels.ops.argmax.spec import ArgMax
from kernels.ops.kit.loops import constant, loop, reduce_max
from kernels.ops.kit.workgroup import PARTS, Store, Workgroup
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Op, Operand, Params, Variant
from kernels.ops.topk.routing import NEVER, before, clean
from kernels.tinygrad.uops import AxisType, Ops


def _logit(args: Args, row: UOp, column: UOp) -> UOp:
    return clean(float32(args["logits"][row, column]))


def _loops(w: Workload, params: Params, args: Args, device: str) -> UOp:
    accumulators, row = params["lanes"], UOp.range(w.m, 0)
    first, second = (loop(w.n // accumulators, number) for number in (1, 2))
    top = UOp.const(NEVER, dtypes.float32)
    for i in range(accumulators):
        top = top.maximum(reduce_max(_logit(args, row, first * accumulators + i), first))
    # the lowest index is the one with the most columns from it to the end
    left = UOp.const(0, dtypes.int32)
    for i in range(accumulators):
        column = second * accumulators + i
        remain = (w.n - column).cast(dtypes.int32)
        left = left.maximum(reduce_max(_logit(args, row, column).eq(top).where(remain, 0), second))
    return args["out"][row, constant(0)].store(w.n - left).end(row)


def _workgroup(w: Workload, params: Params, args: Args, device: str) -> UOp:
    threads, words = params["threads"], params["words"]
    row, member = UOp.range(w.m, 0, AxisType.GLOBAL), UOp.range(threads, 1, AxisType.LOCAL)
    wg = Workgroup(threads, member, row)
    turn = wg.allot.range(-(-w.n // (threads * words)))
    best, places = wg.allot.registers(words), wg.allot.registers(words, dtype=dtypes.int32)
    none = [(best, UOp.const(NEVER, dtypes.float32)), (places, UOp.const(0, dtypes.int32))]
    ready = UOp.group(*[array.after(row, member)[i].store(v) for array, v in none for i in range(words)])
    stores = []
    for i in range(words):
        column = (turn * threads + member) * words + i
        # indices beyond the end are clamped to the last column; a clamped duplicate never wins the comparison
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
    wg.now = (done, member)
    values, ids = wg.array(threads), wg.array(threads, dtype=dtypes.int32)
    wg.each(threads, lambda i: [(values, (i,), value), (ids, (i,), id_)])
    parts = min(PARTS, threads)
    part_values, part_ids = wg.array(parts), wg.array(parts, dtype=dtypes.int32)

    def first(values: UOp, ids: UOp, start: UOp, count: int) -> tuple[UOp, UOp]:
        """The largest of `count` values from `start` on, and the lowest id that has it."""
        values, ids = wg.read(values), wg.read(ids)
        top = wg.over(Ops.MAX, count, lambda i: values[start + i])
        left = wg.over(Ops.MAX, count, lambda i: values[start + i].eq(top).where(w.n - ids[start + i], 0))
        return top, w.n - left

    def part(p: UOp) -> list[Store]:
        top, id_ = first(values, ids, p * (threads // parts), threads // parts)
        return [(part_values, (p,), top), (part_ids, (p,), id_)]

    wg.each(parts, part)
    wg.each(1, lambda i: [(args["out"], (row, i), first(part_values, part_ids, constant(0), parts)[1])])
    return UOp.group(*wg.now).end(row, member)


def _loops_params(w: Workload) -> tuple[Params, ...]:
    return tuple({"lanes": accumulators} for accumulators in (8, 4, 2, 1) if w.n % accumulators == 0)


def _workgroup_params(w: Workload) -> tuple[Params, ...]:
    return tuple(
        {"threads": threads, "words": words}
        for words in (4, 2, 1, 8)
        for threads in (1024, 512, 256, 128, 64, 32)
        if threads * words < 2 * w.n or threads == 32
    )


def _workgroup_needs(w: Workload, params: Params) -> Needs:
    """Local memory holds a value and an id for each thread, and for each part."""
    return Needs(params["threads"], 8 * (params["threads"] + min(PARTS, params["threads"])))


def _variants(w: Workload) -> dict[str, Variant]:
    ArgMax.from_workload(w)
    return {
        "plain": Variant(_loops, _loops_params),
        "team": Variant(_workgroup, _workgroup_params, _workgroup_needs, schedulable=False),
    }


def _operands(w: Workload) -> tuple[Operand, ...]:
    """out [m, 1], logits [m, n]."""
    ArgMax.from_workload(w)
    return (
        Operand("out", (w.m, 1), DTYPES["int32"], OUT),
        Operand("logits", (w.m, w.n), DTYPES[w.x_dtype], INPUT),
    )


OP = Op(
    spec=ArgMax,
    variants=_variants,
    operands=_operands,
    heuristic_baselines=lambda w: (Schedule("plain", (("lanes", 1),), None),),
    default_schedules=defaults.argmax,
    module=__name__,
    products=lambda w: w.m * w.n,
)
