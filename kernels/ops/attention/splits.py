"""Into how many runs attention divides its context: the one answer of the sweep and of the kernels that it tunes.

The runs' partial results are operands, so another number of runs is another kernel: all GPUs have the same, lest what
was swept is not what is served. Imports no tinygrad: a dry run asks too.
"""

from __future__ import annotations

from kernels import backends

SHORTEST_RUN = 64  # positions: fewer are not worth a workgroup of their own
SHARED_HEADS = 4  # that a workgroup takes of those that share keys
WORKGROUPS = 128  # about as many as a large GPU has processors


def splits(seen: int, heads: int, kv_heads: int, device: str = "") -> int:
    """A power of two, such that `seen` positions make about WORKGROUPS workgroups. 1 where `device` has none, as a CPU:
    tinygrad 0.14 runs its threads one after the other, and each run has a cost of its own, with positions in it or
    without. "" is any GPU."""
    if device and not backends.find(device).threads:
        return 1
    groups = max(kv_heads, heads // SHARED_HEADS)
    most = max(1, min(seen // SHORTEST_RUN, WORKGROUPS // groups))
    return 1 << (most.bit_length() - 1)
