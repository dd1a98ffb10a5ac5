"""How experts are compared: scores, probabilities, and the order of two experts. There are no loops here.

This follows llama.cpp's build_moe_ffn (src/llama-graph.cpp): a NaN counts as minus infinity, so that the chosen ids are
always `used` different experts.
"""

from __future__ import annotations

import math

from tinygrad import UOp

from kernels.ops.topk.spec import TopK

SMALLEST_SUM = 2.0**-14  # the smallest normal float16; a sum is raised to this before it divides
NEVER = -math.inf


def exp(x: UOp) -> UOp:
    return (x * (1 / math.log(2))).exp2()


def probability(s: TopK, logit: UOp) -> UOp:
    """The probability of an expert by a gating that looks at no other expert; for softmax_weight the logit itself."""
    if s.gating == "sigmoid":
        return 1.0 / (1.0 + exp(-logit))
    if s.gating == "sqrt_softplus":
        return (logit.maximum(0.0) + _log_of_one_and(exp(-logit.maximum(-logit)))).sqrt()
    return logit


def _log_of_one_and(t: UOp) -> UOp:
    """log(1 + t) for 0 <= t <= 1. A series is used where t is so small that 1 + t would lose its digits."""
    series = t * (1.0 - t * (0.5 - t * (1 / 3 - t * 0.25)))
    return (t < 2.0**-5).where(series, (1.0 + t).log2() * math.log(2))


def clean(score: UOp) -> UOp:
    return score.ne(score).where(NEVER, score)


def before(a: UOp, a_id: UOp, b: UOp, b_id: UOp) -> UOp:
    """Whether expert a goes before expert b: the higher score goes first; of equal scores, the lower id. All kernels
    use this."""
    return (a > b) | (a.eq(b) & (a_id < b_id))
