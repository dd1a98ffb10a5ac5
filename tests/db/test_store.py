from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf, nan
from pathlib import Path

import pytest
from support.store_files import change
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db import codec, queries
from db.records import Measurement, Outcome, Run, Schedule, Stage, Workload
from db.store import Store, StoreError

A, B = schedule("factored", 8), schedule("dequant", 16)
FAULTS = [o for o in Outcome if o not in (Outcome.OK, Outcome.SLOW)]


def served(store: Store) -> list[Schedule]:
    return [w.row.measurement.schedule for w in store.finals()]


@pytest.fixture
def path(place: Path) -> Path:
    return place


@pytest.mark.parametrize(
    "one",
    [
        fact(),
        fact(schedule=Schedule("heuristic", (), None)),
        fact(schedule=Schedule("none", (), ())),
        fact(workload=replace(WORKLOAD, op="flash_decode", n=2**48, extra=(("heads", 8), ("kind", "gqa")))),
        fact(
            outcome=Outcome.TIMEOUT, samples=(), error=None, tolerance=None, reason="killed\nafter 10 s — ✗", nbytes=0
        ),
        fact(outcome=Outcome.WRONG_RESULT, error=inf),
        fact(stage=Stage.PROBE, simulated=True, clock=""),
        fact(samples=(0.0, 1e-9, 0.1 + 0.2)),
    ],
)
def test_a_measurement_comes_back_as_it_was(path: Path, one: Measurement) -> None:
    (row,) = opened(path, one).measurements(codec.workload_digest(one.workload)[:8])
    assert row.measurement == one
    assert row.run == RUN
    assert row.origin == "local"


def test_a_nul_in_a_compilers_message_is_replaced(path: Path) -> None:
    (row,) = opened(path, fact(reason="a\0b")).measurements(codec.workload_digest(WORKLOAD))
    assert row.measurement.reason == "a\N{REPLACEMENT CHARACTER}b"


def test_a_nan_error_is_no_error_figure_and_never_served(path: Path) -> None:
    store = opened(path, fact(error=nan))
    assert store.measurements(codec.workload_digest(WORKLOAD))[0].measurement.error is None
    assert served(store) == []


@pytest.mark.parametrize(
    "bad", [{"samples": (nan,)}, {"samples": (-1e-6,)}, {"samples": (inf,)}, {"nbytes": -1}, {"kernel_digest": ""}]
)
def test_impossible_measurements_are_refused_with_their_batch(path: Path, bad: dict[str, object]) -> None:
    store = opened(path)
    with pytest.raises(ValueError, match=r"must be|does not match"):
        store.record(RUN.id, [fact(), fact(**bad)])
    assert store.stats().rows["measurements"] == 0


def test_a_run_is_started_once_and_before_its_rows(path: Path) -> None:
    store = opened(path)
    with pytest.raises(StoreError, match=r"(?i)unique"):
        store.start_run(RUN)
    with pytest.raises(StoreError, match=r"(?i)foreign key"):
        store.record("another", [fact()])
    assert store.stats().rows["measurements"] == store.stats().rows["workloads"] == 0
    with pytest.raises(ValueError, match="run id"):
        store.start_run(replace(RUN, id="a b"))


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": Stage.PROBE},
        {"outcome": Outcome.SLOW},
        {"simulated": True},
        {"error": None},
        {"tolerance": None},
        {"error": 1e-4},
        {"samples": ()},
    ],
)
def test_what_may_not_be_served(path: Path, changes: dict[str, object]) -> None:
    store = opened(path, fact(**changes))
    assert served(store) == []
    assert store.has_final(WORKLOAD, TARGET, KERNEL, 0, 0) is None


def test_the_newest_final_serves(path: Path) -> None:
    assert served(opened(path, fact(schedule=A), fact(schedule=B))) == [B]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_later_fault_withdraws_a_schedule_until_it_is_accepted_again(path: Path, fault: Outcome) -> None:
    failed = fact(schedule=B, stage=Stage.VERIFY, outcome=fault, samples=())
    store = opened(path, fact(schedule=A), fact(schedule=B), failed)
    assert served(store) == [A]
    store.record(RUN.id, [fact(schedule=B)])
    assert served(store) == [B]


@pytest.mark.parametrize(
    "harmless",
    [
        fact(schedule=B, stage=Stage.VERIFY, outcome=Outcome.SLOW),
        fact(schedule=B, stage=Stage.VERIFY),
        fact(schedule=B, outcome=Outcome.CRASH, kernel_digest="other"),
        fact(schedule=B, outcome=Outcome.CRASH, target=replace(TARGET, compute_units=30)),
        fact(schedule=A, outcome=Outcome.CRASH),
    ],
)
def test_what_does_not_withdraw(path: Path, harmless: Measurement) -> None:
    assert B in served(opened(path, fact(schedule=A), fact(schedule=B), harmless))


def test_finals_carry_the_baselines_of_their_own_run_and_kernel(path: Path) -> None:
    base = fact(schedule=Schedule("heuristic"), stage=Stage.BASELINE, samples=(1e-3,))
    store = opened(path, base, replace(base, kernel_digest="other"), replace(base, target=replace(TARGET, device="M9")))
    store.start_run(replace(RUN, id="run2"))
    store.record("run2", [replace(base, samples=(2e-3,)), fact()])
    (winner,) = store.finals()
    assert [b.median_seconds for b in winner.baselines] == [2e-3]
    assert winner.row.median_seconds == 2e-5


def test_finals_are_filtered_and_ordered(path: Path) -> None:
    shapes = [
        replace(WORKLOAD, n=n, format=f, op=o) for n in (512, 64) for f in ("Q4_K", "F16") for o in ("linear", "topk")
    ]
    store = opened(path, *(fact(workload=w) for w in shapes), fact(target=replace(TARGET, arch="Apple7")))
    found = [w.row.measurement.workload for w in store.finals(TARGET, "linear", "F16")]
    assert [w.n for w in found] == [64, 512]
    assert len(store.finals()) == len(shapes) + 1


@pytest.mark.parametrize(
    ("beam_width", "budget_seconds", "done"), [(4, 60, True), (1, 0, True), (5, 60, False), (4, 61, False)]
)
def test_more_effort_subsumes_less(path: Path, beam_width: int, budget_seconds: float, done: bool) -> None:
    store = opened(path, fact())
    assert store.has_final(WORKLOAD, TARGET, KERNEL, beam_width, budget_seconds) == (fact() if done else None)
    assert store.has_final(replace(WORKLOAD, m=2), TARGET, KERNEL, beam_width, budget_seconds) is None


@pytest.mark.parametrize("damage", ["samples = '[]'", "samples = 'none'", "nbytes = 'many'"])
def test_a_damaged_row_does_not_hide_the_good_one_before_it(tmp_path: Path, damage: str) -> None:
    good = fact(schedule=schedule("good"))
    store = opened(tmp_path / "store.sqlite", good, fact(schedule=schedule("damaged")))
    change(tmp_path / "store.sqlite", f"UPDATE measurements SET {damage} WHERE id = 2")
    assert [winner.row.measurement for winner in store.finals()] == [good]
    assert store.has_final(WORKLOAD, TARGET, KERNEL, 0, 0) == good
    assert len(store.problems) == 1


def test_what_a_resumed_search_is_told(path: Path) -> None:
    slow, gone, back = schedule("slow"), schedule("gone"), schedule("back")
    store = opened(
        path,
        fact(schedule=A, stage=Stage.PROBE, samples=(3e-5,)),
        fact(schedule=A, stage=Stage.CONTENDER, samples=(2e-5,)),
        fact(schedule=B, stage=Stage.PROBE, samples=(1e-5,)),
        fact(schedule=slow, stage=Stage.PROBE, outcome=Outcome.SLOW, samples=(9e-5,)),
        fact(schedule=gone, stage=Stage.PROBE, samples=(1e-9,)),
        fact(schedule=gone, stage=Stage.CONTENDER, outcome=Outcome.WRONG_RESULT, reason="row 3"),
        fact(schedule=back, stage=Stage.PROBE, outcome=Outcome.TIMEOUT),
        fact(schedule=back, stage=Stage.PROBE, samples=(5e-5,)),
        fact(schedule=schedule("sim"), stage=Stage.PROBE, simulated=True),
    )
    asked = (WORKLOAD, TARGET, KERNEL)
    assert store.known_bad(*asked) == {codec.schedule_digest(gone): (Outcome.WRONG_RESULT, "row 3")}
    assert [(m.schedule, m.samples) for m in store.best_probes(*asked, 9)] == [
        (B, (1e-5,)),
        (A, (2e-5,)),
        (back, (5e-5,)),
    ]
    assert [m.schedule for m in store.best_probes(*asked, 1)] == [B]


def test_neighbours_are_the_nearest_served_shapes_of_the_same_kind(path: Path) -> None:
    near = [replace(WORKLOAD, n=n, k=k, m=m) for n, k, m in ((8192, 4096, 1), (1024, 4096, 1), (512, 4096, 8))]
    others = [
        replace(WORKLOAD, format="Q6_K"),
        replace(WORKLOAD, m=32),
        replace(WORKLOAD, n=1, x_dtype="float16"),
        replace(WORKLOAD, extra=(("act", "silu"),)),
    ]
    store = opened(path, *(fact(workload=w, schedule=schedule(f"v{w.n}.{w.m}")) for w in [*reversed(near), *others]))
    store.record(RUN.id, [fact(), fact(workload=near[0], target=replace(TARGET, compute_units=9))])
    found = store.neighbours(WORKLOAD, TARGET, KERNEL, 9)
    assert [s.workload for s in found] == near
    assert found[0].schedule == schedule("v8192.1")
    assert len(store.neighbours(WORKLOAD, TARGET, KERNEL, 2)) == 2
    assert store.neighbours(WORKLOAD, TARGET, "other", 2) == ()


@pytest.mark.parametrize("prefix", ["", "xyz", "AB", "0" * 65, "ffffffff", "%"])
def test_history_needs_one_workload(path: Path, prefix: str) -> None:
    with pytest.raises(StoreError, match="digest"):
        opened(path, fact()).measurements(prefix)


def test_an_ambiguous_prefix_lists_the_digests(path: Path) -> None:
    shapes = [replace(WORKLOAD, n=n) for n in range(1, 40)]
    store = opened(path, *())
    store.record(RUN.id, [fact(workload=w) for w in shapes])
    digests = sorted(codec.workload_digest(w) for w in shapes)
    first = next(a for a, b in pairwise(digests) if a[0] == b[0])
    with pytest.raises(StoreError, match=first[:16]):
        store.measurements(first[0])


def test_stats_count(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    stats = opened(path, fact(), fact(schedule=A), fact(workload=replace(WORKLOAD, m=8))).stats()
    assert dict(stats.rows) == {"runs": 1, "workloads": 2, "targets": 1, "schedules": 2, "measurements": 3}
    assert (stats.served, stats.schema, stats.where) == (2, queries.REVISIONS[-1], str(path))
    assert stats.nbytes is not None
    assert stats.nbytes >= path.stat().st_size


def test_free_text_of_a_run_is_made_printable(path: Path) -> None:
    store = opened(path, fact(), run=Run("r", "sweep a\nb\x1b[2J", 1, 1, (("driver", "1\n2"),)))
    (winner,) = store.finals()
    assert winner.row.run.command == "sweep a�b�[2J"
    assert winner.row.run.versions == (("driver", "1�2"),)


def test_one_store_is_shared_by_shapes_that_differ_by_their_extras(path: Path) -> None:
    experts = [Workload("expert_linear", "Q4_K", 64, 256, extra=(("experts", n),)) for n in (8, 64)]
    assert len(served(opened(path, *(fact(workload=w) for w in experts)))) == 2
