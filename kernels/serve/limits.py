"""How large a kernel may be, told from its loops before it is lowered: for what a search proposes, and for what a store
serves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from db.records import Schedule, Workload
from kernels import backends
from kernels.backends import MOST_SLICES
from kernels.formats.tiles import TILE
from kernels.ops.q8.spec import Q8
from kernels.ops.registry import backend, get_op
from kernels.tinygrad.loops import loop_sizes
from kernels.tinygrad.renderers import Renderer
from kernels.tinygrad.schedule import ScheduledKernel

MAX_THREADS = 1024
_Q8_PRODUCTS = 4 * TILE  # of one instruction over int8: four in each lane


@dataclass(frozen=True)
class KernelSizes:
    """The sizes of a scheduled kernel, computed from its loops."""

    body: int
    threads: int
    groups: int
    grid: int
    upcast: int
    unroll: int
    shared_nbytes: int
    slices: int = 1


@dataclass(frozen=True)
class Limits:
    """The largest sizes of a kernel. body: products in the body of the innermost loop. Each is about 10 uops, and
    tinygrad lowers a body of 250 in about a second, one of a few thousand in minutes."""

    body: int = 256
    threads: int = MAX_THREADS
    shared_nbytes: int = 32768
    slices: int = MOST_SLICES

    @staticmethod
    def of(ren: Renderer, w: Workload) -> Limits:
        """The limits on a device. With several tokens, which share the unpacking of a weight, larger bodies are
        useful."""
        row = backends.find(backend(ren))
        return Limits(256 if w.m < 4 else 512, max(1, row.threads), ren.shared_max, max(1, row.slices))

    def exceeded(self, sizes: KernelSizes) -> str | None:
        """What of a kernel is over the limits, if anything is."""
        for name in ("body", "threads", "shared_nbytes", "slices"):
            if (seen := getattr(sizes, name)) > (most := getattr(self, name)):
                return f"{name} {seen}, the limit is {most}"
        return None


def sizes_of(w: Workload, schedule: Schedule, bare: ScheduledKernel, kernel: ScheduledKernel) -> KernelSizes:
    """The sizes of `kernel`, which is `bare` with the opts of `schedule`."""
    loops = loop_sizes(kernel)
    trips = math.prod(axis.size for axis in bare.axes)
    body = -(-get_op(w).products(w) // trips) * loops.upcast * loops.unroll
    if w.x_dtype == Q8:
        body //= _Q8_PRODUCTS
    lanes = dict(schedule.params).get("lanes", 1)
    return KernelSizes(
        body=body if loops.core_body is None else loops.core_body,
        threads=loops.threads,
        groups=loops.groups,
        grid=loops.grid,
        upcast=loops.upcast,
        unroll=loops.unroll,
        # every accumulator has a place for each thread of a group
        shared_nbytes=4 * lanes * loops.upcast * loops.threads if loops.groups > 1 else 0,
        slices=loops.slices,
    )
