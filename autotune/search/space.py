"""The space of schedules: the neighbours of a schedule, and their sizes before they are lowered.

Lowering a kernel takes tinygrad a second, and most candidates turn out to be too large. Sizes that follow from loops
are computed here in milliseconds, so that those candidates are never lowered.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from autotune.tinygrad_api.actions import actions
from db.records import Schedule, Workload
from kernels.ops.registry import KernelError, backend, body, variants
from kernels.serve.limits import KernelSizes, Limits, sizes_of
from kernels.serve.sink import complete, placeholders
from kernels.tinygrad import slices
from kernels.tinygrad.renderers import Renderer
from kernels.tinygrad.schedule import ScheduledKernel, ScheduleError, apply_opts, heuristic_opts

_FIXED = KernelSizes(1, 1, 1, 1, 1, 1, 0)


@dataclass(frozen=True)
class Candidate:
    """A schedule that applies to the workload, its sizes, and a signature that is equal for equal kernels."""

    schedule: Schedule
    sizes: KernelSizes
    signature: tuple[object, ...]


class Space:
    """The schedules of one workload on one device. It uses the device's renderer and does not open the device."""

    def __init__(self, workload: Workload, ren: Renderer, limits: Limits) -> None:
        self.workload, self.ren, self.limits = workload, ren, limits
        self._variants = variants(workload, backend(ren))
        self._plain: dict[tuple[str, tuple[tuple[str, int], ...]], ScheduledKernel] = {}

    @functools.cached_property
    def starts(self) -> tuple[Schedule, ...]:
        """Every variant with every choice of its integer parameters and without opts. A variant that requires an opt is
        included with that opt on every axis where it applies."""
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
        """Where a search without measurements begins: each variant's first parameters, with many accumulators and with
        one."""
        first: dict[str, Schedule] = {}
        for s in self.starts:
            first.setdefault(s.variant, s)
        plain = [
            replace(s, params=tuple((name, 1 if name == "lanes" else value) for name, value in s.params))
            for s in first.values()
        ]
        return tuple(dict.fromkeys([*first.values(), *plain]))

    def explicit(self, schedule: Schedule) -> Schedule:
        """`schedule` with explicit opts. If it leaves them to tinygrad's heuristic, the heuristic's opts are
        inserted."""
        if schedule.opts is not None:
            return schedule
        bare = replace(schedule, opts=())
        sink = body(self.workload, bare, placeholders(self.workload), backend(self.ren))
        return replace(schedule, opts=heuristic_opts(sink, self.ren))

    def schedulable(self, schedule: Schedule) -> bool:
        """False if the variant fixes its own structure and takes no opts."""
        return self._variants[schedule.variant].schedulable

    def candidate(self, schedule: Schedule) -> Candidate | None:
        """`schedule` with its sizes. None if it does not apply, lacks an opt that its variant requires, or exceeds the
        limits. The schedule must have explicit opts. Sizes are not computed for a variant that takes no opts."""
        if schedule.variant in self._variants and not self.schedulable(schedule):
            known = schedule in self._fixed
            return Candidate(schedule, _FIXED, (schedule.variant, schedule.params)) if known else None
        try:
            return self._candidate(schedule, self._apply(schedule))
        except (ScheduleError, KernelError):
            return None

    def children(self, parent: Schedule) -> Iterator[Candidate]:
        """`parent` with one more opt, then with its loop in more or fewer slices, then with other integer parameters
        and the same opts; each kernel once."""
        if parent.opts is not None:
            steps = self._with_an_opt(parent), self._with_other_slices(parent), self._with_other_params(parent)
            yield from _each_once(itertools.chain.from_iterable(steps))

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

    def _with_other_slices(self, parent: Schedule) -> Iterator[Candidate]:
        opts = parent.opts or ()
        for i, opt in enumerate(opts):
            for amount in slices.AMOUNTS if opt.op == "THREAD" else ():
                changed = (*opts[:i], replace(opt, arg=amount), *opts[i + 1 :])
                if amount != opt.arg and (found := self.candidate(replace(parent, opts=changed))):
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

    def _apply(self, schedule: Schedule) -> ScheduledKernel:
        return self._bare(schedule).with_opts(schedule.opts or ())

    def _candidate(self, origin: Schedule, kernel: ScheduledKernel) -> Candidate | None:
        schedule = Schedule(origin.variant, origin.params, kernel.opts)
        if not self._complete(schedule):
            return None
        sizes = sizes_of(self.workload, origin, self._bare(origin), kernel)
        if self.limits.exceeded(sizes):
            return None
        # only the axis of a tensor core matters; its selection and the permission to pad do not change the kernel
        special = tuple((o.op, o.axis) for o in kernel.opts if o.op == "TC")
        signature = (
            origin.variant,
            origin.params,
            special,
            tuple((a.type, a.size, a.root, a.stride) for a in kernel.axes),
        )
        return Candidate(schedule, sizes, signature)


def _each_once(found: Iterable[Candidate]) -> Iterator[Candidate]:
    seen = set()
    for candidate in found:
        if candidate.signature not in seen:
            seen.add(candidate.signature)
            yield candidate


def _near(a: Schedule, b: Schedule) -> bool:
    """Whether the parameters are one step apart: another variant with equal parameters, or one parameter that is
    doubled, halved, switched on or switched off."""
    if a.variant != b.variant:
        return a.params == b.params
    changed = [sorted((x, dict(b.params)[name])) for name, x in a.params if dict(b.params)[name] != x]
    return len(changed) == 1 and changed[0][1] in (changed[0][0] * 2, changed[0][0] * 2 + 1)
