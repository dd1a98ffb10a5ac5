"""Random legal schedules: any variant, any parameters, a few opts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from autotune.search.space import Space
from db.records import Schedule, Workload
from kernels.serve.limits import Limits
from kernels.tinygrad.renderers import Renderer

if TYPE_CHECKING:
    from autotune.search.strategies.strategy import SearchSpace

MAX_BODY = 8  # the limit for unrolled loop bodies: larger kernels compile slowly and test nothing new


def random_schedules(w: Workload, ren: Renderer, rng: random.Random, opts: int = 3) -> Iterator[Schedule]:
    """An endless iterator of small schedules of `w` for checking kernels. It is empty if no variant supports `w`."""
    return walks(Space(w, ren, replace(Limits.of(ren, w), body=MAX_BODY)), rng, opts)


def walks(space: SearchSpace, rng: random.Random, opts: int) -> Iterator[Schedule]:
    """An endless iterator that takes the variants in turn. From a random start of the variant it adds up to `opts`
    random opts and yields the result. A variant that takes no opts is yielded without opts."""
    starts: dict[str, list[Schedule]] = {}
    for start in space.starts:
        starts.setdefault(start.variant, []).append(start)
    for found in itertools.cycle(starts.values()):
        yield _walk(space, rng.choice(found), rng, opts)


def _walk(space: SearchSpace, start: Schedule, rng: random.Random, opts: int) -> Schedule:
    here = start
    for _ in range(rng.randint(0, opts) if space.schedulable(start) else 0):
        # children with other parameters come last and are skipped, because each needs another kernel to be built
        same = itertools.takewhile(lambda c: c.schedule.params == start.params, space.children(here))
        if not (children := [c.schedule for c in same]):
            break
        here = rng.choice(children)
    return here
