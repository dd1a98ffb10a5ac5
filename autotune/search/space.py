"""The space of schedules: the neighbours of a schedule, with their sizes known before they are lowered.

Lowering a kernel takes tinygrad a second, and most candidates are then found too large. So everything that can be told
from loop sizes is told here, in milliseconds.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from autotune.tinygrad_api.actions import actions
from autotune.tinygrad_api.loops import loop_sizes
from db.records import Schedule, Workload
from kernels import backends
from kernels.ops.registry import KernelError, backend, body, get_op, variants
from kernels.serve.sink import complete, placeholders
from kernels.tinygrad.renderers import Renderer
from kernels.tinygrad.schedule import ScheduledKernel, ScheduleError, apply_opts, heuristic_opts

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
        for opt in actions(kernel, self.ren):
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
        loops = loop_sizes(kernel)
        lanes = dict(origin.params).get("lanes", 1)
        body = self._body(origin) * loops.upcast * loops.unroll
        shape = Shape(
            body=body if loops.core_body is None else loops.core_body,
            threads=loops.threads,
            groups=loops.groups,
            grid=loops.grid,
            upcast=loops.upcast,
            unroll=loops.unroll,
            # every accumulator has a slot for each thread of a group
            shared_nbytes=4 * lanes * loops.upcast * loops.threads if loops.groups > 1 else 0,
        )
        limits = self.limits
        if shape.body > limits.body or shape.threads > limits.threads or shape.shared_nbytes > limits.shared_nbytes:
            return None
        # which loops a tensor core takes; how it was chosen, and whether padding was allowed, makes no difference
        special = tuple((o.op, o.axis) for o in kernel.opts if o.op == "TC")
        signature = (
            origin.variant,
            origin.params,
            special,
            tuple((a.type, a.size, a.root, a.stride) for a in kernel.axes),
        )
        return Candidate(schedule, shape, signature)


def _each_once(found: Iterable[Candidate]) -> Iterator[Candidate]:
    seen = set()
    for candidate in found:
        if candidate.signature not in seen:
            seen.add(candidate.signature)
            yield candidate


def _near(a: Schedule, b: Schedule) -> bool:
    """One step away: another variant with the same parameters, or one parameter doubled, halved, on or off."""
    if a.variant != b.variant:
        return a.params == b.params
    changed = [sorted((x, dict(b.params)[name])) for name, x in a.params if dict(b.params)[name] != x]
    return len(changed) == 1 and changed[0][1] in (changed[0][0] * 2, changed[0][0] * 2 + 1)
