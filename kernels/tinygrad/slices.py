"""Slices of a kernel's loop (OptOps.THREAD), which a host's threads share out among themselves: up to MOST, whatever
number of threads there is.

tinygrad 0.14 allows as many slices as it counts processors (NUM_CPU_THREADS), since it gives each of them one. Threads
that claim slices one by one finish together where there are some more slices than threads, and a schedule that was
tuned elsewhere applies here. What tinygrad's own heuristic does follows its count of processors as before.
"""

from __future__ import annotations

import functools
from typing import Any

MOST = 64


def patch_tinygrad() -> None:
    """Patches tinygrad in this process. Idempotent."""
    from tinygrad.codegen.opt.postrange import Scheduler

    if not hasattr(Scheduler.apply_opt, "__wrapped__"):
        Scheduler.apply_opt = _allowing_slices(Scheduler.apply_opt)


def _allowing_slices(apply_opt: Any) -> Any:
    from tinygrad.codegen.opt import OptOps
    from tinygrad.helpers import NUM_CPU_THREADS, Context

    @functools.wraps(apply_opt)
    def wrapped(scheduler: Any, opt: Any, append_opt: bool = True) -> Any:
        if opt.op is not OptOps.THREAD:
            return apply_opt(scheduler, opt, append_opt)
        with Context(NUM_CPU_THREADS=max(MOST, NUM_CPU_THREADS.value)):
            return apply_opt(scheduler, opt, append_opt)

    return wrapped
