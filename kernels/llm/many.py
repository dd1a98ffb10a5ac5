"""Attention of many tokens at once, for a prompt: plain Tensor expressions over the caches that decoding uses.

Token i of a chunk is at start_pos + i and sees the positions up to its own. Its time is that of tinygrad's own kernels.
"""

from __future__ import annotations

from collections.abc import Mapping

from tinygrad import Tensor, UOp

Extra = Mapping[str, int | str]


def flash(given: Mapping[str, Tensor], start_pos: UOp, extra: Extra) -> Tensor:
    """q [m, heads, head_dim] over k and v [kv_heads, max_ctx, ...]: [m, heads * v_head_dim]."""
    m, heads, dim = (int(size) for size in given["q"].shape)
    end, kv_heads = start_pos + m, int(extra["kv_heads"])
    k, v = (given[name][:, :end].cast(given["q"].dtype) for name in ("k", "v"))
    q = given["q"].reshape(m, kv_heads, heads // kv_heads, dim).permute(1, 2, 0, 3)
    scores = (q @ k.transpose(1, 2).unsqueeze(1)) * float(extra["scale"])
    if (cap := str(extra["softcap"])) != "none":
        scores = (scores / float(cap)).tanh() * float(cap)
    scores = scores + _mask(m, end, start_pos, int(extra["window"]))
    if extra["sinks"]:
        sinks = given["sinks"].reshape(kv_heads, -1, 1, 1)
        top = scores.max(-1, keepdim=True).maximum(sinks)
        weights = (scores - top).exp()
        weights = weights / (weights.sum(-1, keepdim=True) + (sinks - top).exp())
    else:
        weights = scores.softmax(-1)
    return (weights @ v.unsqueeze(1)).permute(2, 0, 1, 3).reshape(m, -1)


def latent(given: Mapping[str, Tensor], start_pos: UOp, extra: Extra) -> Tensor:
    """q_latent [m, heads, rank] and q_rope over cache [max_ctx, rank + rope_dim]: [m, heads * rank]."""
    m, heads, rank = (int(size) for size in given["q_latent"].shape)
    end = start_pos + m
    rows = given["cache"][:end].cast(given["q_latent"].dtype)
    q = given["q_latent"].cat(given["q_rope"].reshape(m, heads, -1), dim=-1).permute(1, 0, 2)
    scores = (q @ rows.transpose()) * float(extra["scale"])
    weights = (scores + _mask(m, end, start_pos, 0)).softmax(-1)
    return (weights @ rows[:, :rank]).permute(1, 0, 2).reshape(m, heads * rank)


def _mask(m: int, end: UOp, start_pos: UOp, window: int) -> Tensor:
    """[m, end]: 0 for the positions that a token sees, -inf for those after it and before its window."""
    after = Tensor.full((m, end), float("-inf"), buffer=False).triu(start_pos + 1)
    if not window:
        return after
    return after + Tensor.full((m, end), float("-inf"), buffer=False).tril(start_pos - window)


MANY = {"flash_decode": flash, "mla_decode": latent}
