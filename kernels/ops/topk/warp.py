"""`topk` by one warp for each token: its lanes hold the scores in registers, and agree on the best score `used`
times."""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.backends import Needs
from kernels.formats.unpack import float32
from kernels.ops.kit.loops import largest, total
from kernels.ops.kit.warp import BITS, WARP, across, other_lane, warp_sum
from kernels.ops.op import Args, Params
from kernels.ops.topk.routing import NEVER, SMALLEST_SUM, before, clean, exp, probability
from kernels.ops.topk.spec import TopK
from kernels.tinygrad.uops import AxisType

_ABSENT = 2.0**24  # an id that comes after all others; ids are float32, as shuffles are written for that


def warp_params(w: Workload) -> tuple[Params, ...]:
    """`warps` of a workgroup, with one token each. No parameters where groups of experts would be spread over lanes, or
    where the rounds, which are written out, would be too much code."""
    r = TopK.from_workload(w)
    if r.groups > 1 or -(-r.experts // WARP) * r.used > 160:
        return ()
    return tuple({"warps": warps} for warps in (1, 4, 2, 8) if warps <= w.m)


def warp_needs(w: Workload, params: Params) -> Needs:
    return Needs(WARP * params["warps"], warp=WARP)


def warp(w: Workload, params: Params, args: Args, device: str) -> UOp:
    r = TopK.from_workload(w)
    block = UOp.range(-(-w.m // params["warps"]), 0, AxisType.GLOBAL)
    member = UOp.range(params["warps"], 1, AxisType.LOCAL)
    lane = UOp.range(WARP, -1, AxisType.WARP)
    place = block * params["warps"] + member
    # tokens beyond the end are clamped to the last one, whose experts are then not stored again
    token = place if w.m % params["warps"] == 0 else place.minimum(w.m - 1)

    def logit(expert: UOp) -> UOp:
        return float32(args["logits"][token, expert].load())

    ids, logits, real = [], [], []
    for i in range(-(-r.experts // WARP)):
        expert = lane + i * WARP
        real.append(expert < r.experts)
        ids.append(real[i].where(expert.cast(dtypes.float32), _ABSENT))
        logits.append(logit(expert.minimum(r.experts - 1)))

    top = sum_ = UOp.const(0.0, dtypes.float32)
    if r.gating == "softmax":
        top = across(largest(logits), UOp.maximum, device)
        exps = [there.where(exp(value - top), 0.0) for there, value in zip(real, logits, strict=True)]
        sum_ = warp_sum(total(exps), device)

    def weight(value: UOp) -> UOp:
        return exp(value - top) / sum_ if r.gating == "softmax" else probability(r, value)

    scores = []
    for i, value in enumerate(logits):
        if r.bias:
            value = weight(value) + args["bias"][(lane + i * WARP).minimum(r.experts - 1)]
        scores.append(real[i].where(clean(value), NEVER))

    own = UOp.const(0.0, dtypes.float32)  # the expert of this lane's slot
    for slot in range(r.used):
        best, best_id = scores[0], ids[0]
        for score, id_ in zip(scores[1:], ids[1:], strict=True):
            best, best_id = _first(score, id_, best, best_id)
        for bit in BITS:
            best, best_id = _first(other_lane(best, bit, device), other_lane(best_id, bit, device), best, best_id)
        own = lane.eq(slot).where(best_id, own)
        taken = [id_.eq(best_id) for id_ in ids]
        scores = [t.where(NEVER, score) for t, score in zip(taken, scores, strict=True)]
        ids = [t.where(_ABSENT, id_) for t, id_ in zip(taken, ids, strict=True)]

    chosen = lane < r.used
    found = logit(own.cast(dtypes.int32).cast(dtypes.weakint))
    if r.gating == "softmax_weight":
        highest = across(chosen.where(found, NEVER), UOp.maximum, device)
        value = exp(found - highest)
    else:
        value = weight(found)
    if r.norm or r.gating == "softmax_weight":
        value = value / warp_sum(chosen.where(value, 0.0), device).maximum(SMALLEST_SUM)
    stored = chosen if w.m % params["warps"] == 0 else chosen & (place < w.m)
    slot = lane.minimum(r.used - 1).valid(stored)
    return UOp.group(
        args["ids"][token, slot].store(own.cast(dtypes.int32)), args["probs"][token, slot].store(value * r.scale)
    ).end(block, member, lane)


def _first(a: UOp, a_id: UOp, b: UOp, b_id: UOp) -> tuple[UOp, UOp]:
    """(score, id) of the one of two experts that goes before the other."""
    ahead = before(a, a_id, b, b_id)
    return ahead.where(a, b), ahead.where(a_id, b_id)
