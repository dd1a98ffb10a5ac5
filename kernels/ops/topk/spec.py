"""What `topk` computes: the experts that each token is routed to, from the router's logits [m, experts]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from db.records import Workload
from kernels.ops.spec import ActivationSpec

GATINGS = ("softmax", "sigmoid", "softmax_weight", "sqrt_softplus")
MAX_EXPERTS, MAX_USED = 1024, 32


@dataclass(frozen=True)
class TopK(ActivationSpec):
    """The ids of `used` of `experts` for each token, and their weights.

    gating: how a logit becomes a probability. Experts are chosen by probability, which is also their weight; with
    "softmax_weight" they are chosen by logit, and the weights are the softmax of the chosen logits. bias: a bias is
    added to the probabilities for the choice only. norm: the weights are divided by their sum. scale: the weights are
    multiplied by it at last. groups: the experts are divided into groups, and chosen from the best `used_groups`.
    """

    op: ClassVar[str] = "topk"
    experts: int
    used: int
    gating: str
    bias: bool = False
    norm: bool = False
    scale: float = 1.0
    groups: int = 1
    used_groups: int = 1

    @property
    def n(self) -> int:
        return self.experts

    @property
    def group_size(self) -> int:
        return self.experts // self.groups

    @property
    def by_logit(self) -> bool:
        """Whether experts can be chosen by logit: probabilities are in the same order."""
        return not self.bias and self.groups == 1

    def check(self, w: Workload) -> None:
        self.positive("scale", "groups")
        if self.gating not in GATINGS:
            raise self.refuse(f"no gating {self.gating!r}; there are {', '.join(GATINGS)}")
        if not 1 <= self.used <= min(self.experts, MAX_USED) or self.experts > MAX_EXPERTS:
            raise self.refuse(f"no kernel for {self.used} of {self.experts} experts")
        if self.groups > 1 and not (
            self.experts % self.groups == 0
            and self.group_size >= 2
            and 1 <= self.used_groups <= self.groups
            and self.used <= self.used_groups * self.group_size
        ):
            raise self.refuse(f"{self.used} experts of {self.used_groups} of {self.groups} groups of {self.experts}")
