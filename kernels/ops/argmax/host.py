"""`host_peaks` and `host_argmax`: `argmax` for the threads of a host's processor.

The first launch reads all logits, and its slices take blocks of them. The second reads one number a block, and then the
first block that has the largest. NaN counts as the smallest, and of equal logits the lowest index is found.

    peaks   [m, blocks] float32     written by host_peaks, read by host_argmax
    out     [m, 1] int32            written by host_argmax
    logits  [m, n]
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Schedule, Workload
from kernels.backends import MOST_SLICES
from kernels.formats.unpack import float32
from kernels.ops.argmax.host_spec import LANES, HostArgMax, HostPeaks
from kernels.ops.host_attention import defaults
from kernels.ops.host_attention.arithmetic import tree
from kernels.ops.kit.loops import constant, largest, reduce_max
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.kit.pieces import ended, pieces
from kernels.ops.kit.workgroup import Store, Workgroup
from kernels.ops.op import DTYPES, INPUT, OUT, Args, Op, Operand, Params, Variant
from kernels.ops.topk.routing import NEVER, clean
from kernels.tinygrad.uops import AxisType

_JOINED = 16  # lanes that are left when the others are joined to them


def _logit(args: Args, row: UOp, column: UOp) -> UOp:
    return clean(float32(masked_element(args["logits"], (row, column))))


def _peaks(w: Workload, params: Params, args: Args, device: str) -> UOp:
    """The kernel: each of `slices` slices takes some blocks of each row."""
    s = HostPeaks.from_workload(w)
    row = UOp.range(w.m, 9, AxisType.LOOP) if w.m > 1 else constant(0)
    block, loops = pieces(s.blocks, params["slices"])
    loops += [row] if w.m > 1 else []
    block = block.minimum(s.blocks - 1)  # what is left over is the last block again, with the same result
    start = (block * s.block).minimum(s.n - s.block)
    lanes = LANES if s.block % LANES == 0 else 1
    wg = Workgroup(1, None, *loops)
    tops, read = wg.array(lanes), wg.read
    wg.update(lanes, lambda r: [(tops, (r,), UOp.const(NEVER, dtypes.float32))])
    step = wg.allot.range(s.block // lanes, AxisType.LOOP)
    wg.now = (*wg.now, step)

    def join(r: UOp) -> list[Store]:
        return [(tops, (r,), read(tops)[r].maximum(_logit(args, row, start + step * lanes + r)))]

    wg.update(lanes, join)
    wg.repeat((step,))
    joined = min(_JOINED, lanes)
    few = wg.array(joined)
    wg.update(joined, lambda r: [(few, (r,), largest([read(tops)[i + r] for i in range(0, lanes, joined)]))])
    peak = tree(UOp.maximum, [read(few)[r] for r in range(joined)])
    wg.update(1, lambda i: [(args["peaks"], (row, block), peak)])
    return ended(UOp.group(*wg.now), loops)


def _argmax(w: Workload, params: Params, args: Args, device: str) -> UOp:
    s = HostArgMax.from_workload(w)
    row, loops = pieces(w.m, 1)
    wg = Workgroup(1, None, *loops)
    read, top, found = wg.read, wg.array(1), wg.array(1, dtype=dtypes.int32)
    block = wg.allot.loop(s.blocks)
    wg.update(1, lambda i: [(top, (i,), reduce_max(args["peaks"][row, block], block))])
    # the first of several is the one with the most of them from it to the end
    other = wg.allot.loop(s.blocks)
    left = _if(args["peaks"][row, other].eq(read(top)[0]), s.blocks - other)
    wg.update(1, lambda i: [(found, (i,), s.blocks - reduce_max(left, other))])
    start = (read(found)[0].cast(dtypes.weakint).maximum(0).minimum(s.blocks - 1) * s.block).minimum(s.n - s.block)
    lanes = _JOINED if s.block % _JOINED == 0 else 1
    lefts = wg.array(lanes, dtype=dtypes.int32)
    wg.update(lanes, lambda r: [(lefts, (r,), UOp.const(0, dtypes.int32))])
    step = wg.allot.range(s.block // lanes, AxisType.LOOP)
    wg.now = (*wg.now, step)

    def scan(r: UOp) -> list[Store]:
        at = step * lanes + r
        here = _if(_logit(args, row, start + at).eq(read(top)[0]), s.block - at)
        return [(lefts, (r,), read(lefts)[r].maximum(here))]

    wg.update(lanes, scan)
    wg.repeat((step,))
    place = s.block - tree(UOp.maximum, [read(lefts)[r] for r in range(lanes)])
    wg.update(1, lambda i: [(args["out"], (row, i), start.cast(dtypes.int32) + place)])
    return ended(UOp.group(*wg.now), loops)


def _if(condition: UOp, value: UOp) -> UOp:
    """int32 `value` where the condition holds, else 0."""
    found: UOp = condition.where(value.cast(dtypes.int32), 0)
    return found


def _slices(w: Workload) -> tuple[Params, ...]:
    blocks = HostPeaks.from_workload(w).blocks
    return tuple({"slices": slices} for slices in (8, 16, 4, 32, 2, 64, 1) if slices <= min(blocks, MOST_SLICES))


def _peaks_variants(w: Workload) -> dict[str, Variant]:
    HostPeaks.from_workload(w)
    return {"lanes": Variant(_peaks, _slices, schedulable=False)}


def _argmax_variants(w: Workload) -> dict[str, Variant]:
    HostArgMax.from_workload(w)
    return {"lanes": Variant(_argmax, lambda w: ({},), schedulable=False)}


def _logits(w: Workload) -> Operand:
    return Operand("logits", (w.m, w.n), DTYPES[w.x_dtype], INPUT)


peaks = Op(
    spec=HostPeaks,
    variants=_peaks_variants,
    operands=lambda w: (
        Operand("peaks", (w.m, HostPeaks.from_workload(w).blocks), dtypes.float32, OUT),
        _logits(w),
    ),
    heuristic_baselines=lambda w: defaults.untuned(_slices(w)),
    default_schedules=lambda w, variants, device: (
        Schedule("lanes", tuple(variants["lanes"].params(w)[0].items()), ()),
    ),
    module=__name__,
    products=lambda w: w.m * w.n,
)
argmax = Op(
    spec=HostArgMax,
    variants=_argmax_variants,
    operands=lambda w: (
        Operand("out", (w.m, 1), DTYPES["int32"], OUT),
        _logits(w),
        Operand("peaks", (w.m, HostArgMax.from_workload(w).blocks), dtypes.float32, INPUT),
    ),
    heuristic_baselines=lambda w: defaults.untuned([{}]),
    default_schedules=lambda w, variants, device: (Schedule("lanes", (), ()),),
    module=__name__,
    products=lambda w: w.m * HostArgMax.from_workload(w).blocks,
    nbytes=lambda w: 4 * w.m * (HostArgMax.from_workload(w).blocks + HostArgMax.from_workload(w).block),
)
