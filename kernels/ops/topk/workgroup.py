"""`topk` by a workgroup for each token, or by one thread: each expert counts those that go before it."""

from __future__ import annotations

from tinygrad import UOp, dtypes

from kernels.backends import Needs
from kernels.formats.unpack import float32
from kernels.ops.kit.workgroup import Team, number, shared_items
from kernels.ops.op import Args, Params
from kernels.ops.topk.routing import NEVER, SMALLEST_SUM, Routing, before, clean, exp, probability
from kernels.tinygrad.uops import AxisType, Ops


def team_params(r: Routing) -> tuple[Params, ...]:
    """No more threads than experts, but a warp at least; the most first."""
    return tuple(
        {"threads": threads} for threads in (256, 128, 64, 32, 512) if threads < 2 * r.experts or threads == 32
    )


def team_needs(r: Routing, params: Params) -> Needs:
    """Logits, scores, their maximum and sum, the groups' sums and the scores that are left, experts and weights."""
    shared = 2 * shared_items(r.experts, params["threads"]) if r.gating == "softmax" else 0
    groups = r.groups + r.experts if r.groups > 1 else 0
    return Needs(params["threads"], 4 * (2 * r.experts + shared + groups + 2 * r.used + 1))


def solo_params(r: Routing) -> tuple[Params, ...]:
    """`threads` of one thread's work next to each other, where a device has no grid of them."""
    return tuple({"threads": threads} for threads in (1, 2, 4, 8, 16) if r.tokens % threads == 0)


def team(r: Routing, params: Params, args: Args) -> UOp:
    token = UOp.range(r.tokens, 0, AxisType.GLOBAL)
    member = UOp.range(params["threads"], 1, AxisType.LOCAL)
    return _choose(r, args, token, Team(params["threads"], member, token)).end(token, member)


def solo(r: Routing, params: Params, args: Args) -> UOp:
    share = r.tokens // params["threads"]
    thread, turn = UOp.range(params["threads"], 0, AxisType.THREAD), UOp.range(share, 1, AxisType.LOOP)
    return _choose(r, args, thread * share + turn, Team(1, None, thread, turn)).end(turn).end(thread)


def _choose(r: Routing, args: Args, token: UOp, crew: Team) -> UOp:
    logits, scores = crew.array(r.experts), crew.array(r.experts)
    crew.each(r.experts, lambda i: [(logits, (i,), float32(args["logits"][token, i]))])
    if r.gating == "softmax":
        top = crew.shared(Ops.MAX, r.experts, lambda i: crew.read(logits)[i], NEVER)
        total = crew.shared(Ops.ADD, r.experts, lambda i: exp(crew.read(logits)[i] - top()), 0.0)

    def weight(i: UOp) -> UOp:
        logit = crew.read(logits)[i]
        return exp(logit - top()) / total() if r.gating == "softmax" else probability(r, logit)

    def score(i: UOp) -> UOp:
        if r.by_logit:
            return clean(crew.read(logits)[i])
        return clean(weight(i) + args["bias"][i] if r.biased else weight(i))

    crew.each(r.experts, lambda i: [(scores, (i,), score(i))])
    if r.groups > 1:
        scores = _only_chosen_groups(r, crew, scores)

    # a place past the last takes those that are not chosen
    chosen, seen = crew.array(r.used + 1, dtypes.int32), scores

    def rank(i: UOp) -> UOp:
        own, all_ = crew.read(seen)[i], crew.read(seen)
        return crew.over(Ops.ADD, r.experts, lambda j: before(all_[j], j, own, i).cast(dtypes.int32))

    crew.each(r.experts, lambda i: [(chosen, (rank(i).minimum(r.used).cast(dtypes.weakint),), i.cast(dtypes.int32))])

    weights = crew.array(r.used)

    def at(slot: UOp) -> UOp:
        return crew.read(chosen)[slot].cast(dtypes.weakint)

    def chosen_weight(slot: UOp) -> UOp:
        if r.gating != "softmax_weight":
            return weight(at(slot))
        highest = crew.over(Ops.MAX, r.used, lambda j: crew.read(logits)[at(j)])
        return exp(crew.read(logits)[at(slot)] - highest)

    crew.each(r.used, lambda slot: [(weights, (slot,), chosen_weight(slot))])

    def probs(slot: UOp) -> UOp:
        value, every = crew.read(weights)[slot], crew.read(weights)
        if r.norm or r.gating == "softmax_weight":
            value = value / crew.over(Ops.ADD, r.used, lambda j: every[j]).maximum(SMALLEST_SUM)
        return value * r.scale

    crew.each(
        r.used,
        lambda slot: [
            (args["ids"], (token, slot), crew.read(chosen)[slot].load()),
            (args["probs"], (token, slot), probs(slot)),
        ],
    )
    return UOp.group(*crew.now)


def _only_chosen_groups(r: Routing, crew: Team, scores: UOp) -> UOp:
    """The scores, with none for experts of other groups than the best `used_groups`."""
    size, sums, seen = r.group_size, crew.array(r.groups), crew.array(r.experts)

    def two_best(group: UOp) -> UOp:
        own = crew.read(scores)
        best = crew.over(Ops.MAX, size, lambda i: own[group * size + i])
        left = crew.over(
            Ops.MAX, size, lambda i: own[group * size + i].eq(best).where(size - i, number(0)).cast(dtypes.int32)
        )
        first = (size - left).cast(dtypes.weakint)
        return best + crew.over(Ops.MAX, size, lambda i: i.ne(first).where(own[group * size + i], NEVER))

    crew.each(r.groups, lambda group: [(sums, (group,), two_best(group))])

    def masked(i: UOp) -> UOp:
        group, all_ = i // size, crew.read(sums)
        own = all_[group]
        rank = crew.over(Ops.ADD, r.groups, lambda j: before(all_[j], j, own, group).cast(dtypes.int32))
        return (rank < r.used_groups).where(crew.read(scores)[i], NEVER)

    crew.each(r.experts, lambda i: [(seen, (i,), masked(i))])
    return seen
