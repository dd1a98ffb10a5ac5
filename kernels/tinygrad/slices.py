"""Slices of a kernel's loop (OptOps.THREAD), which a host's threads share out among themselves: up to MOST, whatever
number of threads there is.

tinygrad 0.14 allows as many slices as it counts processors (NUM_CPU_THREADS), since it gives each of them one. Threads
that claim slices one by one finish together where there are some more slices than threads, and a schedule that was
tuned elsewhere applies here. What tinygrad's own heuristic does follows its count of processors as before.

And its count of a kernel's operations depends on the number of the slice where a loop's length does. A launch, which
adds the count up, knows no such number: here every slice counts as the first.
"""

from __future__ import annotations

import functools
from typing import Any

AMOUNTS = (2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64)
"""The numbers of slices that a search and our defaults split a loop into."""
MOST = AMOUNTS[-1]


def patch_tinygrad() -> None:
    """Patches tinygrad in this process. Idempotent."""
    from tinygrad.codegen.opt.postrange import Scheduler
    from tinygrad.renderer import Estimates

    if not hasattr(Scheduler.apply_opt, "__wrapped__"):
        Scheduler.apply_opt = _allowing_slices(Scheduler.apply_opt)
        Estimates.from_uops = staticmethod(_of_the_first_slice(Estimates.from_uops))


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


def _of_the_first_slice(from_uops: Any) -> Any:
    from tinygrad.renderer import Estimates
    from tinygrad.uop.ops import Ops, UOp

    def first(count: Any) -> Any:
        if not isinstance(count, UOp):
            return count
        numbers = [u for u in count.toposort() if u.op is Ops.PARAM and u.arg.name == "core_id"]
        return count.substitute({u: u.const_like(0) for u in numbers}).ssimplify() if numbers else count

    @functools.wraps(from_uops)
    def wrapped(*args: Any, **named: Any) -> Any:
        found = from_uops(*args, **named)
        return Estimates(*map(first, (found.ops, found.lds, found.mem)))

    return wrapped
