"""How far apart two workloads are."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from support.store_rows import WORKLOAD

from db.queries import distance


def test_distance() -> None:
    e8, e16, gqa, mla = (replace(WORKLOAD, extra=(("x", v),)) for v in (8, 17, "gqa", "mla"))
    assert distance(WORKLOAD, WORKLOAD) == distance(gqa, gqa) == 0
    assert distance(replace(WORKLOAD, n=8192), WORKLOAD) == distance(WORKLOAD, replace(WORKLOAD, k=2048)) > 0.69
    assert distance(e8, e16) == pytest.approx(0.693, abs=1e-3)
    few, many = replace(WORKLOAD, m=4), replace(WORKLOAD, m=32)
    assert distance(few, WORKLOAD) < inf == distance(many, few) == distance(many, replace(many, m=512))
    assert distance(many, replace(many, n=8192)) < inf
    assert distance(gqa, mla) == distance(gqa, e8) == distance(gqa, WORKLOAD) == inf
