"""Into how many slices a default schedule splits a loop for the threads of a host (OptOps.THREAD)."""

from __future__ import annotations

from kernels import backends
from kernels.host import executor
from kernels.tinygrad.slices import AMOUNTS

LEAST_PRODUCTS = 1 << 15  # of a slice: some 10 us of a thread, which claims it in some 0.1 us


def slices(trips: int, products: int, device: str) -> int:
    """The most slices of a loop of `trips` trips that each have LEAST_PRODUCTS of all `products`; 1 for none.

    That is more slices than many a machine has threads, so that these end together. Without the executor, Python would
    launch slice after slice, and there are none.
    """
    most = min(backends.find(device).slices, products // LEAST_PRODUCTS)
    fitting = (amount for amount in reversed(AMOUNTS) if amount <= most and trips % amount == 0)
    return next(fitting, 1) if most > 1 and executor.available() else 1
