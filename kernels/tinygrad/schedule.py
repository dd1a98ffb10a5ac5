"""Applies our opts to a kernel through tinygrad's Scheduler. Knows every loop by a name that survives shape changes.

tinygrad addresses a loop by its position, which shifts when an axis of size 1 collapses: an opt then lands on another
loop without an error. Here a loop is named by the range number that the kernel gave it ("1", "3.0" after a split), or
by the opt that created it ("opt2"), and the position is looked up when the opt is applied.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tinygrad import UOp
from tinygrad.codegen import (
    multi_pm,
    pm_flatten_range,
    pm_load_collapse,
    pm_mops,
    pm_simplify_ranges,
    pm_split_ranges,
    sym,
)
from tinygrad.codegen.opt import KernelOptError, Opt, OptOps
from tinygrad.codegen.opt.heuristic import hand_coded_optimizations
from tinygrad.codegen.opt.postrange import Scheduler
from tinygrad.codegen.opt.tc import TensorCore
from tinygrad.renderer import Renderer
from tinygrad.uop.ops import AxisType, Ops, graph_rewrite

from db import records
from db.errors import AutotuneError
from kernels.tinygrad import slices


class ScheduleError(AutotuneError, ValueError):
    """An opt does not apply to this kernel on this device."""


@dataclass(frozen=True)
class Axis:
    """One loop of a kernel: its name, tinygrad's axis type, its trip count, and how far in the original loop `root`
    one trip moves. Together these say exactly how a kernel is split."""

    name: str
    type: AxisType
    size: int
    root: str
    stride: int


_SUMMED = (AxisType.REDUCE, AxisType.GROUP_REDUCE, AxisType.UNROLL)
_GROUPS = (OptOps.GROUP, OptOps.GROUPTOP)
# What tinygrad 0.14 applies and should not:
# the whole sum comes under the padding's condition once the loop is unrolled or grouped
_PADDED_SUM = "a sum over a padded loop comes out wrong"
# padding's condition goes to the outer load alone, the inner one reads past the end of its buffer
_INDIRECT = "an index that is itself loaded would be read from past the end of a padded loop"
# a loop is replaced by an expression of itself, which its rewriting does not survive
_SPLITS_NOTHING = "an amount of 1 splits nothing"
# tinygrad then times workgroups when a kernel first runs (realize.optimize_local_size): a search, and no schedule
_NO_SIZE = "the size of a workgroup would be left to chance"
# it makes them one dimension with the lanes of the warp (gpudims._group_dims), which are then no neighbours any more
_LANES_APART = "loops of a workgroup beyond what a GPU counts would pull the lanes of a tensor core apart"
# use 2: every product is rounded to the type of its factors
_NO_CORE = "the loops of a tensor core without one"


@functools.lru_cache(maxsize=256)
def _preopt(sink: UOp) -> UOp:
    """What tinygrad does to a kernel before its opts (codegen.full_rewrite_to_sink, 0.14)."""
    sink = graph_rewrite(sink, multi_pm)
    sink = graph_rewrite(sink, pm_mops, bottom_up=True)
    sink = graph_rewrite(sink, pm_load_collapse)
    sink = graph_rewrite(sink, pm_split_ranges + pm_flatten_range, ctx={})
    sink = graph_rewrite(sink, sym + pm_flatten_range)
    return graph_rewrite(sink, pm_flatten_range + pm_simplify_ranges, ctx={})


class ScheduledKernel:
    """A kernel and the opts applied to it so far. `apply` changes it; `copy` is cheap."""

    def __init__(self, sink: UOp, ren: Renderer) -> None:
        slices.patch_tinygrad()
        self._scheduler = Scheduler(_preopt(sink), ren)
        self._scheduler.convert_loop_to_global()
        self.opts: tuple[records.Opt, ...] = ()
        # range number -> (name, root, stride)
        self._known: dict[tuple[int, ...], tuple[str, str, int]] = {}
        for rng in self._scheduler.rngs:
            name = ".".join(map(str, rng.arg[:-1]))
            self._known[rng.arg[:-1]] = (name, name, 1)

    def copy(self) -> ScheduledKernel:
        other = object.__new__(ScheduledKernel)
        # tinygrad numbers new loops from a counter that Scheduler.copy starts again above the highest in use
        other._scheduler, other._known, other.opts = self._scheduler.copy(), dict(self._known), self.opts
        return other

    def with_opts(self, opts: Iterable[records.Opt]) -> ScheduledKernel:
        """A copy with `opts` too; ScheduleError names the first that does not apply."""
        other = self.copy()
        for opt in opts:
            other.apply(opt)
        return other

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The loops in tinygrad's order, which is the order of axis indices."""
        out = []
        for rng in self._scheduler.rngs:
            name, root, stride = self._known.get(rng.arg[:-1], ("", "", 0))
            out.append(Axis(name, rng.arg[-1], int(rng.vmax + 1), root, stride))
        return tuple(out)

    @property
    def tinygrad_opts(self) -> tuple[Opt, ...]:
        return tuple(self._scheduler.applied_opts)

    @property
    def tensor_core(self) -> TensorCore | None:
        """The one that OptOps.TC put the kernel on."""
        return getattr(self._scheduler, "tensor_core", None)

    def _refused(self, opt: Opt, rng: UOp | None) -> str | None:
        """Why not to apply an opt that tinygrad would apply."""
        if opt.op is OptOps.NOLOCALS:
            return _NO_SIZE
        if opt.op is OptOps.TC:
            return _NO_CORE if opt.arg[2] != 1 else None
        if opt.op is OptOps.PADTO and rng is not None:
            return _PADDED_SUM if rng.arg[-1] in _SUMMED else _INDIRECT if self._indirect(rng) else None
        return _SPLITS_NOTHING if opt.arg == 1 and opt.op is not OptOps.SWAP else None

    def _trips(self) -> int:
        """Trips of all loops, those that a tensor core took included."""
        core = self.tensor_core
        loops = math.prod(a.size for a in self.axes if a.type in (AxisType.GLOBAL, AxisType.REDUCE))
        return loops * math.prod(core.dims) if core else loops

    def _lanes_apart(self) -> bool:
        """Whether a workgroup has more dimensions than a GPU counts threads in, or one that is longer."""
        threads = [a.size for a in self.axes if a.type in (AxisType.WARP, AxisType.LOCAL, AxisType.GROUP_REDUCE)]
        most = self._scheduler.ren.local_max or (math.inf,) * 3
        return len(threads) > len(most) or any(size > limit for size, limit in zip(threads, most, strict=False))

    def _indirect(self, rng: UOp | None = None) -> bool:
        """Whether something is loaded at an index that is itself loaded, as the loop `rng` goes, or any."""
        return any(
            u.op is Ops.INDEX and (rng is None or rng in u.backward_slice)
            for b in self._scheduler.bufs
            for u in b.src[1].backward_slice_with_self
        )

    def _locate(self, opt: records.Opt) -> int | None:
        """tinygrad's axis index of `opt`: the position of its named loop among those that the op counts."""
        op = OptOps[opt.op]
        if opt.range is None or op is OptOps.TC:
            return opt.axis
        numbers = [n for n, (name, _, _) in self._known.items() if name == opt.range]
        position = next((i for i, r in enumerate(self._scheduler.rngs) if r.arg[:-1] in numbers), None)
        if position is None:
            raise ScheduleError(f"{opt.op} is meant for the loop {opt.range}, which this kernel does not have")
        if op is OptOps.UNROLL:
            counted: list[int] = self._scheduler.unrollable_dims
        elif op in _GROUPS:
            counted = self._scheduler.axes_of(AxisType.REDUCE)
        else:
            return position
        if position not in counted:
            raise ScheduleError(f"{opt.op} does not go on the loop {opt.range}")
        return counted.index(position)

    def apply(self, opt: records.Opt) -> None:
        """Applies one opt, or raises ScheduleError and leaves the kernel unusable (copy first)."""
        axis = self._locate(opt)
        before = {r.arg[:-1]: r for r in self._scheduler.rngs}
        real = Opt(OptOps[opt.op], axis, opt.arg)
        try:
            target = self._scheduler.real_axis(real.op, real.axis)
            rng = self._scheduler.rngs[target] if target >= 0 else None
            other = self._scheduler.rngs[real.arg] if real.op is OptOps.SWAP and isinstance(real.arg, int) else None
            if reason := self._refused(real, rng):
                raise KernelOptError(reason)
            trips = self._trips()
            self._scheduler.apply_opt(real)
            # level 2 of TC pads what it must. A sum too, which comes out right there
            if real.op is OptOps.TC and self._trips() != trips and self._indirect():
                raise KernelOptError(_INDIRECT)
            if self.tensor_core and self._lanes_apart():
                raise KernelOptError(_LANES_APART)
        except (KernelOptError, ArithmeticError, LookupError, ValueError, AssertionError, TypeError) as e:
            # hand-written or imported opts reach corners where tinygrad asserts instead of raising KernelOptError
            raise ScheduleError(f"{opt.op} axis={opt.axis} arg={opt.arg} range={opt.range}: {e}") from e
        if rng is not None:
            self._track(opt, rng.arg[:-1], int(rng.vmax + 1), before, other)
        name = self._known.get(rng.arg[:-1], (opt.range, "", 0))[0] if rng is not None and other is None else opt.range
        self.opts += (replace(opt, axis=axis, range=name or None),)

    def _track(
        self,
        opt: records.Opt,
        number: tuple[int, ...],
        size: int,
        before: dict[tuple[int, ...], UOp],
        other: UOp | None,
    ) -> None:
        """Names the loop that the opt split off. A split keeps the old number for what remains of the loop."""
        if other is not None:
            a, b = number, other.arg[:-1]
            self._known[a], self._known[b] = self._known[b], self._known[a]
            return
        after = {r.arg[:-1]: r for r in self._scheduler.rngs}
        new = [n for n in after if n not in before]
        if opt.op == "PADTO" or len(new) != 1:
            return
        name, root, stride = self._known[number]
        amount = int(after[new[0]].vmax + 1)
        if opt.op in ("GROUPTOP", "THREAD"):  # the new loop is the outer one
            self._known[new[0]] = (f"opt{len(self.opts)}", root, stride * (size // amount))
        else:
            self._known[new[0]] = (f"opt{len(self.opts)}", root, stride)
            self._known[number] = (name, root, stride * amount)


def apply_opts(sink: UOp, ren: Renderer, opts: tuple[records.Opt, ...]) -> ScheduledKernel:
    """The kernel with all of `opts`; ScheduleError names the first that does not apply."""
    return ScheduledKernel(sink, ren).with_opts(opts)


def heuristic_opts(sink: UOp, ren: Renderer) -> tuple[records.Opt, ...]:
    """What tinygrad's heuristic would do to a kernel, as opts."""
    kernel = ScheduledKernel(sink, ren)
    for opt in hand_coded_optimizations(kernel.copy()._scheduler).applied_opts:
        kernel.apply(records.Opt(opt.op.name, opt.axis, opt.arg))
    return kernel.opts
