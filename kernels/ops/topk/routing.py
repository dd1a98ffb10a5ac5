"""What a router's choice of experts is made of: scores, probabilities, who goes before whom. No loops here.

Follows llama.cpp's build_moe_ffn (src/llama-graph.cpp): a NaN counts as minus infinity, so that the chosen ids are
always `used` different experts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinygrad import UOp

from db.records import Workload
from kernels.ops.op import KernelError

GATINGS = ("softmax", "sigmoid", "softmax_weight", "sqrt_softplus")
MAX_EXPERTS, MAX_USED = 1024, 32
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
        """The choice needs no probability: the larger the logit, the larger it is."""
        return not self.biased and self.groups == 1

    @property
    def group_size(self) -> int:
        return self.experts // self.groups

    @staticmethod
    def of(w: Workload) -> Routing:
        """Raises KernelError for what there is no kernel for."""
        extra = dict(w.extra)

        def integer(name: str, default: int | None = None) -> int:
            value = extra.get(name, default)
            if not isinstance(value, int):
                raise KernelError(f"{w.op} needs the extra {name}, a whole number; saw {value!r}")
            return value

        groups = integer("groups", 1)
        r = Routing(
            w.m, integer("experts"), integer("used"), str(extra.get("gating")), bool(integer("bias", 0)),
            bool(integer("norm", 0)), positive(w, "scale"), groups, integer("used_groups", groups),
        )  # fmt: skip
        if r.gating not in GATINGS:
            raise KernelError(f"{w.op}: no gating {r.gating!r}; there are {', '.join(GATINGS)}")
        if not 1 <= r.used <= min(r.experts, MAX_USED) or r.experts > MAX_EXPERTS or (w.n, w.k) != (r.experts,) * 2:
            raise KernelError(f"{w.op}: no kernel for {r.used} of {r.experts} experts with n={w.n} k={w.k}")
        if r.groups != 1 and not (
            r.groups > 1
            and r.experts % r.groups == 0
            and r.group_size >= 2
            and 1 <= r.used_groups <= r.groups
            and r.used <= r.used_groups * r.group_size
        ):
            raise KernelError(f"{w.op}: {r.used} experts of {r.used_groups} of {r.groups} groups of {r.experts}")
        if w.format != "F32" or not {w.x_dtype, w.out_dtype} <= {"float32", "float16"} or w.epilogue != "none":
            raise KernelError(f"{w.op}: no kernel for {w.format} {w.x_dtype} -> {w.out_dtype} with {w.epilogue!r}")
        return r


def positive(w: Workload, name: str, default: str = "1.0") -> float:
    """The extra `name`, spelled as a number. Raises KernelError where it is none or not positive."""
    text = str(dict(w.extra).get(name, default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise KernelError(f"{w.op} needs the extra {name}, a positive number; saw {text!r}")
    return value


def exp(x: UOp) -> UOp:
    return (x * (1 / math.log(2))).exp2()


def probability(r: Routing, logit: UOp) -> UOp:
    """That of an expert whose gating looks at no other one; with softmax_weight the logit itself."""
    if r.gating == "sigmoid":
        return 1.0 / (1.0 + exp(-logit))
    if r.gating == "sqrt_softplus":
        return (logit.maximum(0.0) + _log_of_one_and(exp(-logit.maximum(-logit)))).sqrt()
    return logit


def _log_of_one_and(t: UOp) -> UOp:
    """log(1 + t) for 0 <= t <= 1; where t is small, 1 + t would have lost it."""
    series = t * (1.0 - t * (0.5 - t * (1 / 3 - t * 0.25)))
    return (t < 2.0**-5).where(series, (1.0 + t).log2() * math.log(2))


def clean(score: UOp) -> UOp:
    return score.ne(score).where(NEVER, score)


def before(a: UOp, a_id: UOp, b: UOp, b_id: UOp) -> UOp:
    """Whether a score goes before another; of equal ones that with the lower id. The order that every kernel has."""
    return (a > b) | (a.eq(b) & (a_id < b_id))
