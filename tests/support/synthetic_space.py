"""A space of schedules made of numbers, with a known best: a search can be tested without a compiler."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

from autotune.search.space import Candidate
from db.records import Opt, Schedule
from kernels.serve.limits import KernelSizes

NAMES = ("UPCAST", "LOCAL", "UNROLL", "GROUP")
TOP = 5  # each amount is 2 ** 0..TOP
VARIANTS = ("dequant", "factored")


class SyntheticSpace:
    """Schedules of four amounts, powers of two, and two variants; a step doubles one amount or changes the variant."""

    def __init__(self) -> None:
        self.sized = 0

    @property
    def starts(self) -> tuple[Schedule, ...]:
        return tuple(Schedule(variant, (), ()) for variant in VARIANTS)

    def schedulable(self, schedule: Schedule) -> bool:
        return True

    def candidate(self, schedule: Schedule) -> Candidate | None:
        self.sized += 1
        logs = {o.op: int(o.arg).bit_length() - 1 for o in schedule.opts or () if isinstance(o.arg, int)}
        if schedule.variant not in VARIANTS or any(log > TOP for log in logs.values()):
            return None
        upcast, local, unroll, group = (2 ** logs.get(name, 0) for name in NAMES)
        sizes = KernelSizes(upcast * unroll, local * group, group, 1024 // local, upcast, unroll, 4 * local * group)
        return Candidate(schedule, sizes, (schedule.variant, upcast, local, unroll, group))

    def children(self, parent: Schedule) -> Iterator[Candidate]:
        logs = {o.op: o.arg for o in parent.opts or ()}
        for name in NAMES:
            amounts = {**logs, name: 2 * int(logs.get(name) or 1)}  # type: ignore[arg-type]
            if found := self.candidate(of(parent.variant, **amounts)):
                yield found
        for variant in VARIANTS:
            if variant != parent.variant and (found := self.candidate(Schedule(variant, (), parent.opts))):
                yield found

    def everything(self) -> list[Candidate]:
        amounts = product(range(TOP + 1), repeat=len(NAMES))
        found = [
            self.candidate(of(variant, **{name: 2**log for name, log in zip(NAMES, logs, strict=True)}))
            for variant, logs in product(VARIANTS, amounts)
        ]
        return [c for c in found if c is not None]


def of(variant: str = "dequant", **amounts: object) -> Schedule:
    opts = tuple(Opt(name, None, int(str(amounts[name])), "1") for name in NAMES if str(amounts.get(name, 1)) != "1")
    return Schedule(variant, (), opts)


def seconds(c: Candidate) -> float:
    """A bowl in the logarithms with its bottom at factored, UPCAST 4, LOCAL 16, UNROLL 8, GROUP 2."""
    s = c.sizes
    far = [
        math.log2(s.upcast) - 2,
        math.log2(s.threads / s.groups) - 4,
        math.log2(s.unroll) - 3,
        math.log2(s.groups) - 1,
    ]
    return 1e-4 * math.exp(0.25 * sum(d * d for d in far)) * (1.0 if c.schedule.variant == "factored" else 1.4)


BEST = of("factored", UPCAST=4, LOCAL=16, UNROLL=8, GROUP=2)
