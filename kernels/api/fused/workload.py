"""How many tokens a fused function is given, and the name of what it adds."""

from __future__ import annotations

from tinygrad import Tensor

from db.records import M_BUCKETS
from kernels.api.arguments import ArgumentError, sizes


def tokens(op: str, x: Tensor, shape: str, k: int) -> int:
    """m of an x of `shape`, "[m, k]", whose last dimension is k. Raises ArgumentError."""
    m, *_, columns = sizes(op, "x", x, shape)
    if columns != k:
        raise ArgumentError(f"{op}: x of shape {x.shape} is not {shape} with k={k}, the weight's")
    return bucket(op, x, m)


def bucket(op: str, x: Tensor, m: int) -> int:
    """m. Raises ArgumentError where it is no bucket."""
    if m not in M_BUCKETS:
        raise ArgumentError(f"{op}: x of shape {x.shape} has {m} tokens, expected m one of {M_BUCKETS}: pad it first")
    return m


def epilogue(**terms: Tensor | None) -> str:
    """The name of those terms that are there: "bias", "add", "gate" in this order, "none" for none."""
    return "_".join(name for name, term in terms.items() if term is not None) or "none"
