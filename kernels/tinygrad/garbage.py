"""Python's garbage collector while tinygrad lowers kernels.

Lowering makes some 10^5 small objects a kernel. By Python's own thresholds the collector walks through all that is
alive every 700 of them, which takes a fifth of the time of lowering and frees next to nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# new objects before a collection of the youngest; the other two are as Python has them
THRESHOLDS = (100_000, 10, 10)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collects garbage less often, in this process and in children that it forks meanwhile."""
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
