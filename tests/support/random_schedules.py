"""Random legal schedules of a workload on the device under test, run and judged."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from autotune.search import sample
from db.records import Outcome, Schedule, Workload
from kernels.ops.registry import get_op
from support.kernel_runs import case_of, device, run


def counts(few: int = 1, many: int = 20) -> pytest.MarkDecorator:
    """Runs a test with `few` random schedules, as argument `count`, and at night with `many`."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.nightly)])


def random_schedules(w: Workload, rng: random.Random, opts: int = 3) -> Iterator[Schedule]:
    return sample.random_schedules(w, device().renderer, rng, opts)


def assert_random_schedules(w: Workload, count: int, element_error: float) -> None:
    """`count` random schedules compute what they must, no element further off than `element_error`; but for variants
    that compute with less than float32, which have a tolerance of their own."""
    case, rough = case_of(w), {variant for variant, _ in get_op(w).tolerances}
    for schedule in itertools.islice(random_schedules(w, random.Random(str(w))), count):
        verdict = run(w, schedule, case)
        assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"
        if schedule.variant not in rough:
            assert (verdict.max_element_error or 0.0) <= element_error, f"{w} {schedule}: {verdict}"
