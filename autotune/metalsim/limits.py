"""Metal's limits on a launch, from Apple's feature-set tables for the families Apple7 to Apple9.

A pipeline's own maxTotalThreadsPerThreadgroup can be lower than THREADS, and only Apple's compiler knows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.metalsim.verdict import Verdict

THREADS = 1024
BUFFERS = 31


def refused(
    threads: Sequence[int], groups: Sequence[int], arguments: int, max_threads: int = THREADS
) -> Verdict | None:
    """The verdict on a launch that Metal would refuse, else None.

    threads, groups   threads in a threadgroup and threadgroups in the grid, each (x, y, z)
    arguments         entries of the buffer table, including constants
    max_threads       the kernel's own limit
    """
    seen = (
        (math.prod(threads), min(max_threads, THREADS), "threads a threadgroup"),
        (arguments, BUFFERS, "buffers"),
    )
    for value, limit, what in seen:
        if value > limit:
            return Verdict("limit", f"{value} {what}; Metal allows {limit}")
    if min(*threads, *groups) < 1:
        return Verdict("limit", f"a grid of {tuple(groups)} threadgroups of {tuple(threads)} threads is empty")
    return None
