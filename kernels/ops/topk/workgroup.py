"""`topk` by one workgroup, or a single thread, for each token: for each expert the experts before it are counted."""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.backends import Needs
from kernels.formats.unpack import float32
from kernels.ops.kit.loops import constant
from kernels.ops.kit.workgroup import Workgroup, shared_items
from kernels.ops.op import Args, Params
from kernels.ops.topk.routing import NEVER, SMALLEST_SUM, before, clean, exp, probability
from kernels.ops.topk.spec import TopK
from kernels.tinygrad.uops import AxisType, Ops


def workgroup_params(w: Workload) -> tuple[Params, ...]:
    """`threads` of a workgroup: at least 32, and less than twice as many as there are experts."""
    return tuple({"threads": n} for n in (256, 128, 64, 32, 512) if n < 2 * w.n or n == 32)


def workgroup_needs(w: Workload, params: Params) -> Needs:
    """Local memory holds logits and scores, parts of their maximum and sum, the sums of groups and the scores of chosen
    groups, and the chosen experts and their weights."""
    r = TopK.from_workload(w)
    shared = 2 * shared_items(r.experts, params["threads"]) if r.gating == "softmax" else 0
    groups = r.groups + r.experts if r.groups > 1 else 0
    return Needs(params["threads"], 4 * (2 * r.experts + shared + groups + 2 * r.used + 1))


def single_thread_params(w: Workload) -> tuple[Params, ...]:
    """`threads` that run side by side, on devices without a grid, each for a share of the tokens."""
    return tuple({"threads": threads} for threads in (1, 2, 4, 8, 16) if w.m % threads == 0)


def workgroup(w: Workload, params: Params, args: Args, device: str) -> UOp:
    token = UOp.range(w.m, 0, AxisType.GLOBAL)
    member = UOp.range(params["threads"], 1, AxisType.LOCAL)
    return _choose(w, args, token, Workgroup(params["threads"], member, token)).end(token, member)


def single_thread(w: Workload, params: Params, args: Args, device: str) -> UOp:
    share = w.m // params["threads"]
    thread, turn = UOp.range(params["threads"], 0, AxisType.THREAD), UOp.range(share, 1, AxisType.LOOP)
    return _choose(w, args, thread * share + turn, Workgroup(1, None, thread, turn)).end(turn).end(thread)


def _choose(w: Workload, args: Args, token: UOp, wg: Workgroup) -> UOp:
    r = TopK.from_workload(w)
    logits, scores = wg.array(r.experts), wg.array(r.experts)
    wg.each(r.experts, lambda i: [(logits, (i,), float32(args["logits"][token, i]))])
    if r.gating == "softmax":
        top = wg.shared(Ops.MAX, r.experts, lambda i: wg.read(logits)[i], NEVER)
        total = wg.shared(Ops.ADD, r.experts, lambda i: exp(wg.read(logits)[i] - top()), 0.0)

    def weight(i: UOp) -> UOp:
        logit = wg.read(logits)[i]
        return exp(logit - top()) / total() if r.gating == "softmax" else probability(r, logit)

    def score(i: UOp) -> UOp:
        if r.by_logit:
            return clean(wg.read(logits)[i])
        return clean(weight(i) + args["bias"][i] if r.bias else weight(i))

    wg.each(r.experts, lambda i: [(scores, (i,), score(i))])
    if r.groups > 1:
        scores = _only_chosen_groups(r, wg, scores)

    # the extra place at the end is for experts that are not chosen
    chosen, seen = wg.array(r.used + 1, dtype=dtypes.int32), scores

    def rank(i: UOp) -> UOp:
        own, all_ = wg.read(seen)[i], wg.read(seen)
        return wg.over(Ops.ADD, r.experts, lambda j: before(all_[j], j, own, i).cast(dtypes.int32))

    wg.each(r.experts, lambda i: [(chosen, (rank(i).minimum(r.used).cast(dtypes.weakint),), i.cast(dtypes.int32))])

    weights = wg.array(r.used)

    def at(slot: UOp) -> UOp:
        return wg.read(chosen)[slot].cast(dtypes.weakint)

    def chosen_weight(slot: UOp) -> UOp:
        if r.gating != "softmax_weight":
            return weight(at(slot))
        highest = wg.over(Ops.MAX, r.used, lambda j: wg.read(logits)[at(j)])
        return exp(wg.read(logits)[at(slot)] - highest)

    wg.each(r.used, lambda slot: [(weights, (slot,), chosen_weight(slot))])

    def probs(slot: UOp) -> UOp:
        value, every = wg.read(weights)[slot], wg.read(weights)
        if r.norm or r.gating == "softmax_weight":
            value = value / wg.over(Ops.ADD, r.used, lambda j: every[j]).maximum(SMALLEST_SUM)
        return value * r.scale

    wg.each(
        r.used,
        lambda slot: [
            (args["ids"], (token, slot), wg.read(chosen)[slot].load()),
            (args["probs"], (token, slot), probs(slot)),
        ],
    )
    return UOp.group(*wg.now)


def _only_chosen_groups(r: TopK, wg: Workgroup, scores: UOp) -> UOp:
    """The scores, with NEVER for experts outside the best `used_groups` groups."""
    size, sums, seen = r.group_size, wg.array(r.groups), wg.array(r.experts)

    def two_best(group: UOp) -> UOp:
        own = wg.read(scores)
        best = wg.over(Ops.MAX, size, lambda i: own[group * size + i])
        left = wg.over(
            Ops.MAX, size, lambda i: own[group * size + i].eq(best).where(size - i, constant(0)).cast(dtypes.int32)
        )
        first = (size - left).cast(dtypes.weakint)
        return best + wg.over(Ops.MAX, size, lambda i: i.ne(first).where(own[group * size + i], NEVER))

    wg.each(r.groups, lambda group: [(sums, (group,), two_best(group))])

    def masked(i: UOp) -> UOp:
        group, all_ = i // size, wg.read(sums)
        own = all_[group]
        rank = wg.over(Ops.ADD, r.groups, lambda j: before(all_[j], j, own, group).cast(dtypes.int32))
        return (rank < r.used_groups).where(wg.read(scores)[i], NEVER)

    wg.each(r.experts, lambda i: [(seen, (i,), masked(i))])
    return seen
