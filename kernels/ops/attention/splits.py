"""The number of runs into which attention divides its context. Sweeps and the kernels that are served both take it
here.

The partial results of the runs are operands, so that another number of runs is another workload. All GPUs have the same
number: otherwise a sweep for one would not serve another. tinygrad is not imported, since a dry run asks too.
"""

from __future__ import annotations

from kernels import backends

SHORTEST_RUN = 64  # positions of a run; fewer are not worth a workgroup of their own
SHARED_HEADS = 4  # query heads with the same keys that a workgroup takes
WORKGROUPS = 128  # about as many as a large GPU has processors


def splits(seen: int, heads: int, kv_heads: int, device: str = "") -> int:
    """A power of two with which `seen` positions make about WORKGROUPS workgroups. It is 1 where `device` has no
    workgroups, as a CPU: tinygrad 0.14 runs the threads of a CPU one after the other, and even an empty run costs time.
    The device "" is any GPU."""
    if device and not backends.find(device).threads:
        return 1
    groups = max(kv_heads, heads // SHARED_HEADS)
    most = max(1, min(seen // SHORTEST_RUN, WORKGROUPS // groups))
    return 1 << (most.bit_length() - 1)
