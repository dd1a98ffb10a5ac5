"""The experts that tokens are routed to, over Tensors, in one launch; tuned where a schedule is known.

Nothing is ever searched here. See `kernels.ops.topk.topk` for what is computed.
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
    """ids int32 [m, used] and probs float32 [m, used] of the experts chosen by logits [m, experts], the best first.

    gating: "softmax", "sigmoid", "sqrt_softplus", or "softmax_weight" for a softmax of the chosen logits. bias
    [experts] is added for the choice only; norm divides probs by their sum; scale multiplies them at last; groups > 1
    takes experts from the best used_groups of so many only. Raises ArgumentError for other dtypes, shapes or numbers.
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
