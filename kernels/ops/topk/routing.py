"""How experts are compared: scores, probabilities, and the order of two experts. No loops here.

Follows llama.cpp's build_moe_ffn (src/llama-graph.cpp): a NaN counts as minus infinity, so that the chosen ids are
always `used` different experts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinygrad import UOp

from db.records import Workload
from kernels.ops.op import KernelError
from kernels.ops.topk.spec import TopK

SMALLEST_SUM = 2.0**-14  # the smallest normal float16: what a sum that is divided by is at least
NEVER = -math.inf


@dataclass(frozen=True)
class Routing:
    """`used` of `experts` are chosen for each of `tokens`. biased: a bias is added for the choice only. norm: the
    chosen probabilities are divided by their sum. groups: experts come from the best `used_groups` of so many."""

    tokens: int
    experts: int
    used: int
    gating: str
    biased: bool
    norm: bool
    scale: float
    groups: int
    used_groups: int

    @property
    def by_logit(self) -> bool:
        """Whether experts can be chosen by their logits, in whose order their probabilities are."""
        return not self.biased and self.groups == 1

    @property
    def group_size(self) -> int:
        return self.experts // self.groups

    @staticmethod
    def of(w: Workload) -> Routing:
        """Raises KernelError for what there is no kernel for."""
        s = TopK.from_workload(w)
        if not {w.x_dtype, w.out_dtype} <= {"float32", "float16"}:
            raise KernelError(f"{w.op}: no kernel for {w.x_dtype} -> {w.out_dtype}")
        return Routing(w.m, s.experts, s.used, s.gating, s.bias, s.norm, s.scale, s.groups, s.used_groups)


def exp(x: UOp) -> UOp:
    return (x * (1 / math.log(2))).exp2()


def probability(r: Routing, logit: UOp) -> UOp:
    """The probability of an expert by a gating that looks at no other expert; for softmax_weight the logit itself."""
    if r.gating == "sigmoid":
        return 1.0 / (1.0 + exp(-logit))
    if r.gating == "sqrt_softplus":
        return (logit.maximum(0.0) + _log_of_one_and(exp(-logit.maximum(-logit)))).sqrt()
    return logit


def _log_of_one_and(t: UOp) -> UOp:
    """log(1 + t) for 0 <= t <= 1. A series is used where t is so small that 1 + t would lose its digits."""
    series = t * (1.0 - t * (0.5 - t * (1 / 3 - t * 0.25)))
    return (t < 2.0**-5).where(series, (1.0 + t).log2() * math.log(2))


def clean(score: UOp) -> UOp:
    return score.ne(score).where(NEVER, score)


def before(a: UOp, a_id: UOp, b: UOp, b_id: UOp) -> UOp:
    """Whether expert a goes before expert b: the higher score, and of equal scores the lower id. All kernels use it."""
    return (a > b) | (a.eq(b) & (a_id < b_id))
