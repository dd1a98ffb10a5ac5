"""The alphabet of a search: every opt that tinygrad could apply next to a kernel.

A superset of tinygrad's BEAM actions (codegen/opt/search.py, 0.14): amounts are tried on every loop that they divide,
where the stock list lacks UPCAST 8, UNROLL 2 and 8, GROUP 2 and others.
"""

from __future__ import annotations

from collections.abc import Iterator

from tinygrad.renderer import Renderer
from tinygrad.uop.ops import AxisType

from db.records import Opt
from kernels.tinygrad import slices
from kernels.tinygrad.schedule import ScheduledKernel

FULL = 0  # tinygrad's amount for "the whole loop"
_AMOUNTS = {
    "UPCAST": (2, 3, 4, 5, 6, 7, 8, 16),
    "UNROLL": (2, 3, 4, 5, 7, 8, 16, 32),
    "LOCAL": (2, 3, 4, 8, 13, 16, 29, 32, 64, 128),
    "GROUPTOP": (2, 4, 8, 13, 16, 28, 29, 32, 49, 64, 128, 256),
    "GROUP": (2, 4, 8, 16, 32),
    "THREAD": slices.AMOUNTS,
    "PADTO": (2, 4, 8, 16, 32),
}
_ON = {
    AxisType.WEAK: ("UPCAST", "THREAD", "PADTO"),
    AxisType.GLOBAL: ("UPCAST", "LOCAL", "PADTO"),
    AxisType.LOCAL: ("UPCAST",),
    AxisType.REDUCE: ("UNROLL", "GROUPTOP", "GROUP"),
    AxisType.GROUP_REDUCE: ("UNROLL",),
}


def actions(kernel: ScheduledKernel, ren: Renderer) -> Iterator[Opt]:
    """Every opt that may apply to `kernel` as it is now; applying one can still raise ScheduleError."""
    axes = kernel.axes
    applied = {o.op for o in kernel.opts}
    for axis in axes:
        for op in _ON.get(axis.type, ()):
            if op in ("LOCAL", "GROUP", "GROUPTOP") and not ren.has_local:
                continue
            if op == "THREAD" and (not ren.has_threads or "THREAD" in applied):
                continue
            for amount in _AMOUNTS[op]:
                if _pads(axis.size, amount) if op == "PADTO" else axis.size % amount == 0:
                    yield Opt(op, None, amount, axis.name)
            if op in ("UNROLL", "GROUP") and axis.size not in _AMOUNTS[op]:
                yield Opt(op, None, FULL, axis.name)
    grid = [(i, a) for i, a in enumerate(axes) if a.type is AxisType.GLOBAL]
    for i, first in grid:
        for j, _ in grid:
            if i < j:
                yield Opt("SWAP", i, j, first.name)
    # level 2 pads what the levels below refuse
    if not kernel.opts and ren.tensor_cores:
        for number in range(9):
            for level in (0, 1, 2):
                yield Opt("TC", number, (-1, level, 1))


def _pads(size: int, amount: int) -> bool:
    """True if padding to a multiple of `amount` adds something, but not over an eighth of the work."""
    return 0 < -size % amount <= size // 8
