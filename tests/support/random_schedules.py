"""Random legal schedules of a workload, drawn as the search would meet them."""

from __future__ import annotations

import itertools
import random

from autotune.tinygrad_api.space import Limits, Space
from db.records import Outcome, Schedule, Workload
from support.kernel_runs import case_of, device, run

BODY = 32  # products in a kernel's innermost body: larger ones take seconds to compile


def drawn(found: Space, rng: random.Random, depth: int, body: int = BODY) -> list[Schedule]:
    """The schedules on a random path of up to `depth` opts from a small start."""
    starts = rng.sample(found.starts, len(found.starts))
    sized = (c for s in starts if (c := found.candidate(s)))
    if (small := next((c for c in sized if c.shape.body <= body), None)) is None:
        return [starts[0]]  # TQ1_0: every step reads 64 weights
    here = small.schedule
    path = [here]
    for _ in range(depth if found.schedulable(here) else 0):
        # other parameters come last, and are dear: each is a kernel of its own to prepare
        same = itertools.takewhile(lambda c, p=here.params: c.schedule.params == p, found.children(here))
        if not (children := [c for c in same if c.shape.body <= body]):
            break
        here = rng.choice(children).schedule
        path.append(here)
    return path


def assert_random_schedules_right(w: Workload, count: int, seed: int = 0, depth: int = 4, body: int = BODY) -> None:
    """Runs `count` random schedules (fewer only where there are fewer) on the device under test."""
    rng, ren = random.Random(f"{w}{seed}"), device().renderer
    found, case, tried = Space(w, ren, Limits.of(ren, w)), case_of(w, seed), 0
    for _ in range(4 * count):
        for schedule in drawn(found, rng, depth, body)[-2:]:
            verdict = run(w, schedule, case)
            assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"
            tried += 1
            if tried == count:
                return
