"""Random legal schedules: any variant, any parameters, a few opts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from autotune.search.space import Limits, Space
from db.records import Schedule, Workload
from kernels.tinygrad.renderers import Renderer

if TYPE_CHECKING:
    from autotune.search.strategies.strategy import SearchSpace

MAX_BODY = 8  # what opts may unroll to: compiling larger kernels is slow and tells nothing new


def random_schedules(w: Workload, ren: Renderer, rng: random.Random, opts: int = 3) -> Iterator[Schedule]:
    """Endless small schedules of `w`, to check kernels with. Empty where no variant has parameters for `w`."""
    return walks(Space(w, ren, Limits(body=MAX_BODY, shared_nbytes=Limits.of(ren, w).shared_nbytes)), rng, opts)


def walks(space: SearchSpace, rng: random.Random, opts: int) -> Iterator[Schedule]:
    """Endless: takes each variant in turn, and yields the end of a random path of up to `opts` opts from one of its
    starts. A variant that takes no opts is yielded as it starts."""
    starts: dict[str, list[Schedule]] = {}
    for start in space.starts:
        starts.setdefault(start.variant, []).append(start)
    for found in itertools.cycle(starts.values()):
        yield _walk(space, rng.choice(found), rng, opts)


def _walk(space: SearchSpace, start: Schedule, rng: random.Random, opts: int) -> Schedule:
    here = start
    for _ in range(rng.randint(0, opts) if space.schedulable(start) else 0):
        # other parameters come last, and are dear: each is a kernel of its own to prepare
        same = itertools.takewhile(lambda c: c.schedule.params == start.params, space.children(here))
        if not (children := [c.schedule for c in same]):
            break
        here = rng.choice(children)
    return here
