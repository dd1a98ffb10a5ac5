"""Random legal schedules of a workload on the device under test: any variant, any parameters, a few opts."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator

from autotune.tinygrad_api.space import Limits, Space
from db.records import Outcome, Schedule, Workload
from support.kernel_runs import case_of, device, run

MAX_BODY = 8  # what opts may unroll to: compiling larger kernels is slow and tells nothing new
COUNT = int(os.environ.get("AUTOTUNE_TEST_SCHEDULES", "20"))


def random_schedules(w: Workload, rng: random.Random, opts: int = 3) -> Iterator[Schedule]:
    """Endless: each variant by turns; of those that take opts, the end of a random path of up to `opts` of them."""
    ren = device().renderer
    space = Space(w, ren, Limits(body=MAX_BODY, shared_nbytes=Limits.of(ren, w).shared_nbytes))
    starts: dict[str, list[Schedule]] = {}
    for start in space.starts:
        starts.setdefault(start.variant, []).append(start)
    for found in itertools.cycle(starts.values()):
        yield _walk(space, rng.choice(found), rng, opts)


def _walk(space: Space, start: Schedule, rng: random.Random, opts: int) -> Schedule:
    here = start
    for _ in range(rng.randint(0, opts) if space.schedulable(start) else 0):
        # other parameters come last, and are dear: each is a kernel of its own to prepare
        same = itertools.takewhile(lambda c: c.schedule.params == start.params, space.children(here))
        if not (children := [c.schedule for c in same]):
            break
        here = rng.choice(children)
    return here


def assert_random_schedules(w: Workload, count: int, element_error: float) -> None:
    """`count` random schedules compute what they must, no element further off than `element_error`."""
    case = case_of(w)
    for schedule in itertools.islice(random_schedules(w, random.Random(str(w))), count):
        verdict = run(w, schedule, case)
        assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"
        assert (verdict.max_element_error or 0.0) <= element_error, f"{w} {schedule}: {verdict}"
