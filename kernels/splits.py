"""Into how many runs attention divides its context: the one answer of the sweep and of the kernels that it tunes.

Not by the device: the runs' partial results are operands, so another number of runs is another kernel, and what was
swept would not be what is served. Imports nothing: a dry run asks too.
"""

from __future__ import annotations

SHORTEST_RUN = 64  # positions: fewer are not worth a workgroup of their own
SHARED_HEADS = 4  # that a workgroup takes of those that share keys
WORKGROUPS = 128  # about as many as a large GPU has processors


def splits(seen: int, heads: int, kv_heads: int) -> int:
    """A power of two, such that `seen` positions make about WORKGROUPS workgroups."""
    groups = max(kv_heads, heads // SHARED_HEADS)
    most = max(1, min(seen // SHORTEST_RUN, WORKGROUPS // groups))
    return 1 << (most.bit_length() - 1)
