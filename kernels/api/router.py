"""Selects the experts of tokens, over Tensors, in one launch. The schedule is looked up, never searched.

`kernels.ops.topk.topk` explains the computation.
"""

from __future__ import annotations

from tinygrad import Tensor

from kernels.api.arguments import FLOATS, ArgumentError, given, sizes
from kernels.api.launch import launch
from kernels.api.scalars import at_most, scalars
from kernels.ops.topk.spec import TopK


@scalars
def topk(
    logits: Tensor,
    used: int,
    gating: str = "softmax",
    *,
    bias: Tensor | None = None,
    norm: bool = False,
    scale: float = 1.0,
    groups: int = 1,
    used_groups: int = 1,
) -> tuple[Tensor, Tensor]:
    """ids int32 [m, used] and probs float32 [m, used] of the experts selected by logits [m, experts], the best first.

    gating   "softmax", "sigmoid", "sqrt_softplus", or "softmax_weight", which is a softmax of the selected logits
    bias     [experts], added for the selection only
    norm     whether probs are divided by their sum
    scale    multiplies probs at the end
    groups   experts form this number of groups, and are selected from the best used_groups of them

    Raises ArgumentError for invalid dtypes, shapes or numbers.
    """
    m, experts = sizes("topk", "logits", logits, "[m, experts]")
    if experts % groups:
        raise ArgumentError(f"topk: groups is {groups}, which does not divide the {experts} experts of logits")
    at_most("topk", "used_groups", used_groups, groups, "the number of groups")
    at_most("topk", "used", used, experts // groups * used_groups, "the experts of the groups that are used")
    spec = TopK(
        experts=experts,
        used=used,
        gating=gating,
        bias=bias is not None,
        norm=norm,
        scale=scale,
        groups=groups,
        used_groups=used_groups if groups > 1 else 1,
    )
    w = spec.workload(m, FLOATS[logits.dtype])
    read = {"logits": logits, **given(bias=bias)}
    ids, probs = launch(w, str(logits.device), read)
    return ids, probs
