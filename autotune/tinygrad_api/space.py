"""The neighbours of a schedule: every opt that tinygrad could apply next, with its size known before it is lowered.

A superset of tinygrad's BEAM actions (codegen/opt/search.py, 0.14): amounts are tried on every loop they divide, where
the stock list lacks UPCAST 8, UNROLL 2 and 8, GROUP 2 and others. Lowering a kernel costs tinygrad a second and most
candidates are then found too large, so everything that can be told from loop sizes is told here, in milliseconds.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tinygrad.codegen.opt.tc import TensorCore
from tinygrad.renderer import Renderer
from tinygrad.uop.ops import AxisType

from db.records import Opt, Schedule, Workload
from kernels import backends
from kernels.ops.registry import KernelError, backend, body, get_op, variants
from kernels.serve.sink import complete, placeholders
from kernels.tinygrad.schedule import Axis, ScheduledKernel, ScheduleError, apply_opts, heuristic_opts

FULL = 0  # tinygrad's amount for "the whole loop"
_AMOUNTS = {
    "UPCAST": (2, 3, 4, 5, 6, 7, 8, 16),
    "UNROLL": (2, 3, 4, 5, 7, 8, 16, 32),
    "LOCAL": (2, 3, 4, 8, 13, 16, 29, 32, 64, 128),
    "GROUPTOP": (2, 4, 8, 13, 16, 28, 29, 32, 49, 64, 128, 256),
    "GROUP": (2, 4, 8, 16, 32),
    "THREAD": (2, 3, 4, 5, 8, 12, 16, 24, 32, 64),
    "PADTO": (2, 4, 8, 16, 32),
}
_ON = {
    AxisType.WEAK: ("UPCAST", "THREAD", "PADTO"),
    AxisType.GLOBAL: ("UPCAST", "LOCAL", "PADTO"),
    AxisType.LOCAL: ("UPCAST",),
    AxisType.REDUCE: ("UNROLL", "GROUPTOP", "GROUP"),
    AxisType.GROUP_REDUCE: ("UNROLL",),
}
_THREADS = (AxisType.LOCAL, AxisType.GROUP_REDUCE, AxisType.WARP)
MAX_THREADS = 1024


@dataclass(frozen=True)
class Limits:
    """What a candidate may be. `body`: products that the innermost loop's body holds, about 10 uops each; tinygrad's
    lowering takes about a second for 250."""

    body: int = 256
    threads: int = MAX_THREADS
    shared_nbytes: int = 32768

    @staticmethod
    def of(ren: Renderer, w: Workload) -> Limits:
        """Those of a device. Several tokens share a weight's unpacking, so that there a large body pays."""
        threads = max(1, backends.find(backend(ren)).threads)
        return Limits(256 if w.m < 4 else 512, threads, ren.shared_max)


@dataclass(frozen=True)
class Shape:
    """The size of a scheduled kernel, read off its loops."""

    body: int
    threads: int
    groups: int
    grid: int
    upcast: int
    unroll: int
    shared_nbytes: int


_FIXED = Shape(1, 1, 1, 1, 1, 1, 0)


@dataclass(frozen=True)
class Candidate:
    """A schedule that applies here, its shape, and a signature that is equal for equal kernels."""

    schedule: Schedule
    shape: Shape
    signature: tuple[object, ...]


class Space:
    """The schedules of one workload on one device. Holds no clock, no store, and opens no device."""

    def __init__(self, workload: Workload, ren: Renderer, limits: Limits) -> None:
        self.workload, self.ren, self.limits = workload, ren, limits
        self._variants = variants(workload, backend(ren))
        self._plain: dict[tuple[str, tuple[tuple[str, int], ...]], ScheduledKernel] = {}

    @functools.cached_property
    def starts(self) -> tuple[Schedule, ...]:
        """Every variant with every choice of its integer parameters, without opts; or with the one that it must have,
        at every place where that applies."""
        bare = (
            Schedule(name, tuple(sorted(params.items())), ())
            for name, variant in self._variants.items()
            for params in variant.params(self.workload)
        )
        return tuple(s for b in bare for s in ([b] if self._complete(b) else self._completed(b)))

    @functools.cached_property
    def _fixed(self) -> frozenset[Schedule]:
        return frozenset(s for s in self.starts if not self.schedulable(s))

    @property
    def seeds(self) -> tuple[Schedule, ...]:
        """Where a search that knows nothing begins: each variant at its widest, with many accumulators and with one."""
        first: dict[str, Schedule] = {}
        for s in self.starts:
            first.setdefault(s.variant, s)
        plain = [
            replace(s, params=tuple((name, 1 if name == "lanes" else value) for name, value in s.params))
            for s in first.values()
        ]
        return tuple(dict.fromkeys([*first.values(), *plain]))

    def explicit(self, schedule: Schedule) -> Schedule:
        """`schedule` with the opts that tinygrad's heuristic chooses spelled out, where it leaves them to it."""
        if schedule.opts is not None:
            return schedule
        bare = replace(schedule, opts=())
        sink = body(self.workload, bare, placeholders(self.workload), backend(self.ren))
        return replace(schedule, opts=heuristic_opts(sink, self.ren))

    def schedulable(self, schedule: Schedule) -> bool:
        """False where the variant fixes its own structure and takes no opts."""
        return self._variants[schedule.variant].schedulable

    def candidate(self, schedule: Schedule) -> Candidate | None:
        """`schedule` sized up, or None where it does not apply, lacks the opt that its variant must have, or is over
        the limits. opts None cannot be sized up. Where the variant fixes its own structure, its parameters say all."""
        if schedule.variant in self._variants and not self.schedulable(schedule):
            known = schedule in self._fixed
            return Candidate(schedule, _FIXED, (schedule.variant, schedule.params)) if known else None
        try:
            return self._candidate(schedule, self._apply(schedule))
        except (ScheduleError, KernelError):
            return None

    def children(self, parent: Schedule) -> Iterator[Candidate]:
        """`parent` with one more opt, or with other integer parameters and the same opts; each kernel once."""
        if parent.opts is not None:
            yield from _each_once(itertools.chain(self._with_an_opt(parent), self._with_other_params(parent)))

    def _complete(self, schedule: Schedule) -> bool:
        return complete(self._variants[schedule.variant], schedule)

    def _completed(self, bare: Schedule) -> list[Schedule]:
        return [c.schedule for c in _each_once(self._with_an_opt(bare))]

    def _with_an_opt(self, parent: Schedule) -> Iterator[Candidate]:
        if not self.schedulable(parent):
            return
        kernel = self._apply(parent)
        for opt in _actions(kernel, self.ren):
            child = kernel.copy()
            try:
                child.apply(opt)
            except ScheduleError:
                continue
            if found := self._candidate(parent, child):
                yield found

    def _with_other_params(self, parent: Schedule) -> Iterator[Candidate]:
        for start in self.starts:
            if self.schedulable(start) == self.schedulable(parent) and _near(start, parent):
                moved = Schedule(start.variant, start.params, parent.opts)
                if found := self.candidate(moved):
                    yield found

    def _bare(self, schedule: Schedule) -> ScheduledKernel:
        key = (schedule.variant, schedule.params)
        if key not in self._plain:
            bare = Schedule(schedule.variant, schedule.params, ())
            sink = body(self.workload, bare, placeholders(self.workload), backend(self.ren))
            self._plain[key] = apply_opts(sink, self.ren, ())
        return self._plain[key]

    def _body(self, schedule: Schedule) -> int:
        """Products in the innermost loop's body before any opt."""
        return -(
            -get_op(self.workload.op).products(self.workload) // math.prod(a.size for a in self._bare(schedule).axes)
        )

    def _apply(self, schedule: Schedule) -> ScheduledKernel:
        kernel = self._bare(schedule).copy()
        for opt in schedule.opts or ():
            kernel.apply(opt)
        return kernel

    def _candidate(self, origin: Schedule, kernel: ScheduledKernel) -> Candidate | None:
        schedule = Schedule(origin.variant, origin.params, kernel.opts)
        if not self._complete(schedule):
            return None
        axes = kernel.axes
        lanes = dict(origin.params).get("lanes", 1)
        upcast = _product(axes, AxisType.UPCAST)
        groups = _product(axes, AxisType.GROUP_REDUCE)
        threads = _product(axes, *_THREADS)
        unroll = _product(axes, AxisType.UNROLL)
        shape = Shape(
            body=_core_body(axes, core) if (core := kernel.tensor_core) else self._body(origin) * upcast * unroll,
            threads=threads,
            groups=groups,
            grid=_product(axes, AxisType.GLOBAL),
            upcast=upcast,
            unroll=unroll,
            # every accumulator has a slot for each thread of a group
            shared_nbytes=4 * lanes * upcast * threads if groups > 1 else 0,
        )
        limits = self.limits
        if shape.body > limits.body or threads > limits.threads or shape.shared_nbytes > limits.shared_nbytes:
            return None
        # which loops a tensor core takes; how it was chosen, and whether padding was allowed, makes no difference
        special = tuple((o.op, o.axis) for o in kernel.opts if o.op == "TC")
        signature = (origin.variant, origin.params, special, tuple((a.type, a.size, a.root, a.stride) for a in axes))
        return Candidate(schedule, shape, signature)


def _product(axes: tuple[Axis, ...], *types: AxisType) -> int:
    return math.prod(a.size for a in axes if a.type in types)


def _each_once(found: Iterable[Candidate]) -> Iterator[Candidate]:
    seen = set()
    for candidate in found:
        if candidate.signature not in seen:
            seen.add(candidate.signature)
            yield candidate


def _core_body(axes: tuple[Axis, ...], core: TensorCore) -> int:
    """What a body is worth in products: it has an instruction for each of the loops upcast or unrolled after TC, whose
    own have no names; and for each about 5 uops an element of its operands and result, to load, unpack and add it."""
    instructions = math.prod(a.size for a in axes if a.name and a.type in (AxisType.UPCAST, AxisType.UNROLL))
    return instructions * int(sum(core.elements_per_thread)) // 2


def _pads(size: int, amount: int) -> bool:
    """True if padding to a multiple of `amount` adds something, but not over an eighth of the work."""
    return 0 < -size % amount <= size // 8


def _near(a: Schedule, b: Schedule) -> bool:
    """One step away: another variant with the same parameters, or one parameter doubled, halved, on or off."""
    if a.variant != b.variant:
        return a.params == b.params
    changed = [sorted((x, dict(b.params)[name])) for name, x in a.params if dict(b.params)[name] != x]
    return len(changed) == 1 and changed[0][1] in (changed[0][0] * 2, changed[0][0] * 2 + 1)


def _actions(kernel: ScheduledKernel, ren: Renderer) -> Iterator[Opt]:
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
