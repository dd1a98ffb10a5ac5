"""How fast a device copies: what the bandwidth of a kernel is compared with."""

from __future__ import annotations

import statistics

import numpy as np
from tinygrad.codegen.opt import Opt, OptOps
from tinygrad.dtype import dtypes
from tinygrad.uop.ops import KernelInfo, UOp

from autotune.tinygrad_api.launch import LoadError, OpenDevice
from autotune.tinygrad_api.lower import LoweringError, compile_program

_COPY_OPTS: tuple[tuple[Opt, ...] | None, ...] = (
    None,
    (Opt(OptOps.UPCAST, 0, 4),),
    (Opt(OptOps.UPCAST, 0, 4), Opt(OptOps.LOCAL, 0, 256)),
)


def copy_bandwidth(device: OpenDevice, nbytes: int) -> float:
    """Bytes read plus written a second by the fastest of a few copy kernels over a buffer of `nbytes`."""
    count = nbytes // 4
    buffers = [device.upload(np.zeros(count, np.float32)) for _ in range(2)]
    best = float("inf")
    for opts in _COPY_OPTS:
        try:
            kernel = device.load(compile_program(_copy(count, opts), device.renderer))
        except (LoweringError, LoadError):
            continue
        best = min(best, statistics.median([kernel(buffers) for _ in range(6)][1:]))
    return 2 * 4 * count / best


def _copy(count: int, opts: tuple[Opt, ...] | None) -> UOp:
    out, source = (UOp.placeholder((count,), dtypes.float32, slot=i) for i in range(2))
    i = UOp.range(count, 0)
    return out[i].store(source[i]).end(i).sink(arg=KernelInfo(name="copy", opts_to_apply=opts))
