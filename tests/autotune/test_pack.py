"""`autotune pack`: what is packed, what is left out, that equal inputs give equal files, and what rules say."""

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support.store_rows import RUN, fact, opened

from autotune.pack import STALE, differs, pack, write
from autotune.rules import NOT_TIMED, Shape, computed
from db.exchange import ExchangeError, export_payload
from db.lookup import Lookup
from db.paths import PACKAGED
from db.records import Opt, Outcome, Schedule, Stage, Target, Workload
from kernels.ops.registry import kernel_digest
from kernels.serve.classes import classes

ROOT = Path(__file__).parents[2]
HERE = Target("CPU", "x86_64-avx2", "a processor", 8)
W = Workload("linear", "Q4_0", 4096, 4096)
WIDE, TALL = replace(W, k=14336), replace(W, n=14336)
DIGEST = kernel_digest(W)


def tuned(amount: int) -> Schedule:
    return Schedule("factored", (("lanes", 8), ("words", 4)), (Opt("UPCAST", None, amount, "1"),))


A, B, C = (tuned(a) for a in (2, 4, 8))


def row(**changes):
    return fact(**{"workload": W, "target": HERE, "kernel_digest": DIGEST, "schedule": A, **changes})


@pytest.fixture
def results(tmp_path):
    """Writes rows as an export and returns its name."""
    numbers = itertools.count()

    def make(*rows, run=RUN):
        number = next(numbers)
        store = opened(tmp_path / f"store{number}.sqlite", *rows, run=replace(run, id=f"{run.id}-{number}"))
        path = tmp_path / f"rows{number}.json"
        path.write_text(json.dumps(export_payload(store)))
        return str(path)

    return make


def test_the_packaged_store_is_what_its_rows_give():
    assert not differs(pack([str(path) for path in ROOT.glob("db/rows/*.json")]), PACKAGED), (
        "run: autotune pack db/rows/*.json -o db/packaged.sqlite"
    )


def test_a_row_is_served_from_the_packed_store_with_its_run(results, tmp_path):
    packed = pack([results(row())])
    write(packed, tmp_path / "p.sqlite")
    found = Lookup(tmp_path / "none", tmp_path / "p.sqlite").exact(W, HERE, DIGEST)
    assert (found.schedule, found.origin) == (A, "packaged")
    assert packed.rows[0].run.versions == RUN.versions


def test_the_order_of_inputs_changes_no_byte(results, tmp_path):
    paths = [results(row()), results(row(workload=WIDE, schedule=B)), results(row(workload=TALL, schedule=C))]
    for name, order in (("a", paths), ("b", paths[::-1])):
        write(pack(order), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert not differs(pack(paths), tmp_path / "a")
    assert differs(pack(paths[1:]), tmp_path / "a")


def test_the_newest_of_several_rows_is_packed(results):
    old, new = results(row()), results(row(schedule=B))
    for paths in ([old, new], [new, old]):
        assert [r.final.measurement.schedule for r in pack(paths).rows] == [B]


def test_what_may_not_be_served_is_left_out_with_the_reason(results):
    paths = [results(row(kernel_digest="cd" * 32)), results(row(error=1e-3, tolerance=1e-2, workload=WIDE))]
    packed = pack(paths)
    assert packed.rows == ()
    assert packed.left_out == Counter({STALE: 1, "less exact, as they say themselves, than the op must be": 1})


def test_a_rule_outlives_the_source_that_its_rows_are_of(results):
    """Until there is a row of the present source."""
    old, new = results(row(kernel_digest="cd" * 32)), results(row(schedule=B))
    for paths, best in (([old], A), ([old, new], B)):
        rules = pack(paths).rules
        assert {rule.schedules[0] for rule in rules} == {best}
        assert rules[0].shapes == 1


def test_two_runs_of_one_id_are_refused(results, tmp_path):
    first = results(row())
    other = tmp_path / "other.json"
    payload = json.loads(Path(first).read_text())
    payload["runs"][0]["command"] = "another"
    other.write_text(json.dumps(payload))
    with pytest.raises(ExchangeError, match="different runs of the id"):
        pack([first, str(other)])


def test_times_of_other_shapes_schedules_travel_and_make_the_rule(results):
    """B is no shape's winner by much, but the best over all."""
    rows = []
    for w, own, other in ((W, A, C), (TALL, C, A)):
        rows.append(row(workload=w, schedule=other, stage=Stage.PROBE, samples=(4e-5,), outcome=Outcome.SLOW))
        rows.append(row(workload=w, schedule=B, stage=Stage.BASELINE, samples=(2.1e-5,) * 3))
        rows.append(row(workload=w, schedule=own))
    rules = {rule.kind: rule for rule in pack([results(*rows)]).rules}
    found = rules[classes(W)[-1]]
    assert (found.schedules[0], found.shapes, found.loss) == (B, 2, 1.05)


def shape(w, times, target=HERE):
    return Shape(w, target, min(times.values()), times)


def test_a_schedule_that_was_not_timed_on_a_shape_counts_as_a_little_slow():
    a_little, much = (1 + NOT_TIMED) / 2, 2 * NOT_TIMED
    for slowness, best in ((a_little, B), (much, A)):
        rules = computed([shape(W, {A: 1.0, B: slowness}), shape(TALL, {B: 1.0, C: 3.0})])
        assert next(r for r in rules if r.kind == classes(W)[-1]).schedules[0] == best


def test_an_untuned_schedule_is_no_rule():
    assert computed([shape(W, {replace(A, opts=None): 1.0})]) == ()


def test_a_rule_that_says_no_more_than_the_next_class_is_left_out():
    rules = computed([shape(W, {A: 1.0, B: 2.0})])
    assert {r.kind for r in rules} == {classes(W)[2], classes(W)[-1]}


def test_each_arch_has_its_own_rules():
    other = replace(HERE, arch="x86_64-avx512")
    rules = computed([shape(W, {A: 1.0, B: 2.0}), shape(W, {A: 4.0, B: 1.0}, other)])
    served = {r.arch: r.schedules[0] for r in rules if r.kind == classes(W)[-1]}
    assert served == {"": B, HERE.arch: A, other.arch: B}
