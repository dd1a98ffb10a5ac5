"""Shared by the fused functions: the check of the number of tokens, and the name of an epilogue."""

from __future__ import annotations

from tinygrad import Tensor

from db.records import M_BUCKETS
from kernels.api.arguments import ArgumentError, sizes


def tokens(op: str, x: Tensor, shape: str, k: int) -> int:
    """The number of tokens m of an x of `shape`, "[m, k]", whose last dimension must be k. Raises ArgumentError."""
    m, *_, columns = sizes(op, "x", x, shape)
    if columns != k:
        raise ArgumentError(f"{op}: x of shape {x.shape} is not {shape} with the weight's k={k}")
    return bucket(op, x, m)


def bucket(op: str, x: Tensor, m: int) -> int:
    """m, checked to be one of M_BUCKETS. Raises ArgumentError."""
    if m not in M_BUCKETS:
        raise ArgumentError(f"{op}: x of shape {x.shape} has {m} tokens, expected one of {M_BUCKETS}: pad it first")
    return m


def epilogue(**terms: Tensor | None) -> str:
    """The epilogue's name: the names of the terms that are not None, joined by "_", in the order bias, add, gate;
    "none" without terms."""
    return "_".join(name for name, term in terms.items() if term is not None) or "none"
