"""`topk` as plain loops, for opts to schedule: the rank of an expert is the number of experts that go before it.

Nothing is sorted: two nested Ops.REDUCE compare every pair of experts. Loops: 0 token, 1 slot, 2 the expert, 3 the
expert that it is compared with; with groups, 12 and 13 are the groups of 2 and 3. All other loops are private.
"""

from __future__ import annotations

from tinygrad import UOp, dtypes

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.kit.allot import Allotter
from kernels.ops.kit.loops import constant, loop, reduce_add, reduce_max
from kernels.ops.op import Args, Params
from kernels.ops.topk.routing import NEVER, SMALLEST_SUM, before, clean, exp, probability
from kernels.ops.topk.spec import TopK

Place = tuple[UOp, UOp]
"""An expert: its group and its number in the group."""


class _Choice:
    """Scores and ranks of the experts of one token."""

    def __init__(self, r: TopK, args: Args, token: UOp) -> None:
        self._r, self._args, self._token, self._allot = r, args, token, Allotter()
        if r.gating == "softmax":
            g, i = self.loops()
            self._top = reduce_max(self.logit((g, i)), g, i)
            g, i = self.loops()
            self._sum = reduce_add(exp(self.logit((g, i)) - self._top), g, i)

    def loops(self, inner: int = -1, outer: int = -1) -> Place:
        """Loops over all experts, with these numbers; a negative number means a private loop."""
        sizes = ((self._r.groups, outer), (self._r.group_size, inner))
        group, i = (self._allot.loop(size) if name < 0 else loop(size, name) for size, name in sizes)
        return group, i

    def id(self, place: Place) -> UOp:
        return place[0] * self._r.group_size + place[1]

    def logit(self, place: Place) -> UOp:
        return float32(self._args["logits"][self._token, self.id(place)])

    def probability(self, place: Place) -> UOp:
        if self._r.gating == "softmax":
            return exp(self.logit(place) - self._top) / self._sum
        return probability(self._r, self.logit(place))

    def score(self, place: Place) -> UOp:
        if self._r.by_logit:
            return clean(self.logit(place))
        value = self.probability(place)
        return clean(value + self._args["bias"][self.id(place)] if self._r.bias else value)

    def _group_score(self, group: UOp) -> UOp:
        """The sum of the two best scores of a group."""
        size = self._r.group_size
        i, j, k = (self._allot.loop(size) for _ in range(3))
        best = reduce_max(self.score((group, i)), i)
        left = reduce_max(self.score((group, j)).eq(best).where(size - j, 0).cast(dtypes.int32), j)
        first = (size - left).cast(dtypes.weakint)
        return best + reduce_max(k.ne(first).where(self.score((group, k)), NEVER), k)

    def taken(self, group: UOp) -> UOp | None:
        """Whether a group is chosen. None where there is only one group."""
        if self._r.groups == 1:
            return None
        other = self._allot.loop(self._r.groups)
        ahead = before(self._group_score(other), other, self._group_score(group), group)
        return reduce_add(ahead.cast(dtypes.int32), other) < self._r.used_groups

    def rank(self, place: Place, inner: int = -1, outer: int = -1) -> UOp:
        """Number of experts that go before this one. It is `used` for an expert whose group is not chosen."""
        group, i = self.loops(inner, outer)
        ahead = before(self.score((group, i)), self.id((group, i)), self.score(place), self.id(place))
        count = reduce_add(ahead.cast(dtypes.int32), i)
        if (taken := self.taken(group)) is None:
            return reduce_add(count, group)
        own = self.taken(place[0])
        assert own is not None
        return own.where(reduce_add(taken.where(count, 0), group), self._r.used)


def pairs(w: Workload, params: Params, args: Args, device: str) -> UOp:
    r = TopK.from_workload(w)
    token, slot = UOp.range(w.m, 0), UOp.range(r.used, 1)
    choice = _Choice(r, args, token)
    top = UOp.const(0.0, dtypes.float32)
    if r.gating == "softmax_weight":
        place = choice.loops()
        # the highest of the chosen logits; without bias and groups it is the highest of all logits
        logit = choice.logit(place)
        if not r.by_logit:
            logit = (choice.rank(place) < r.used).where(logit, NEVER)
        top = reduce_max(logit, *place)

    def weight(at: Place) -> UOp:
        return exp(choice.logit(at) - top) if r.gating == "softmax_weight" else choice.probability(at)

    place = choice.loops(2, 12)
    rank = choice.rank(place, 3, 13)
    here = rank.eq(slot.cast(dtypes.int32))
    found = reduce_add(here.where(choice.id(place), constant(0)).cast(dtypes.int32), *place)
    value = reduce_add(here.where(weight(place), 0.0), *place)
    if r.norm or r.gating == "softmax_weight":
        value = value / reduce_add((rank < r.used).where(weight(place), 0.0), *place).maximum(SMALLEST_SUM)
    return UOp.group(args["ids"][token, slot].store(found), args["probs"][token, slot].store(value * r.scale)).end(
        token, slot
    )
