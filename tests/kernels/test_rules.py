"""The step `rule` of the lookup: when it is asked, which rule answers, and what of it is served."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.kernel_runs import backend, device
from support.store_files import change
from support.store_rows import fact, opened

from db.exchange import write_sqlite
from db.lookup import Lookup
from db.payload import FORMAT, VERSION, parse
from db.records import Opt, Outcome, Schedule, Stage, Target, Workload
from db.rules import ANY_ARCH, Rule
from kernels.ops.registry import kernel_digest, variants
from kernels.serve.classes import classes
from kernels.serve.server import Server

W = Workload("linear", "Q4_0", 64, 64)
FAR = replace(W, n=4096, k=4096)
ROOT = Path(__file__).parents[2]
EMPTY = {"format": FORMAT, "version": VERSION, "runs": [], "finals": []}


def tuned(amount: int, words: int = 1) -> Schedule:
    return Schedule("factored", (("lanes", 1), ("words", words)), (Opt("UPCAST", None, amount, "1"),))


A, B, C, ILLEGAL = (tuned(a) for a in (2, 4, 8, 7))


@pytest.fixture(scope="module")
def here():
    device()
    return Target(backend(), "arch", "this one", 8)


@pytest.fixture
def resolve(tmp_path, here):
    """Resolves W with these rules in the packaged store, and rows of the user's."""

    def make(rules, *rows):
        opened(tmp_path / "user", *(fact(**{"kernel_digest": kernel_digest(W), "target": here, **row}) for row in rows))
        write_sqlite(tmp_path / "packaged", EMPTY, rules)
        return Server(Lookup(tmp_path / "user", tmp_path / "packaged"), "on").resolve(W, here)

    return make


def rule(*schedules: Schedule, level: int = 0, **changes) -> Rule:
    return replace(Rule(backend(), ANY_ARCH, classes(W)[level], schedules, 5, 1.1), **changes)


def test_the_rule_of_the_smallest_class_serves(resolve):
    found = resolve([rule(A, level=3), rule(B, level=1), rule(C, level=4)])
    assert (found.step, found.schedule, found.served) == ("rule", B, None)
    assert found.rule == rule(B, level=1)


def test_the_targets_arch_comes_first_and_another_arch_never(resolve):
    assert resolve([rule(A), rule(B, level=4, arch="arch"), rule(C, arch="another")]).schedule == B


@pytest.mark.parametrize("changes", [{"backend": "ELSEWHERE"}, {"arch": "another"}, {"kind": classes(FAR)[0]}])
def test_a_rule_for_something_else_is_not_served(resolve, changes):
    assert resolve([rule(A, **changes)]).step == "default"


def test_the_first_schedule_that_applies_is_served(resolve):
    assert resolve([rule(ILLEGAL, replace(A, variant="unknown"), B, A)]).schedule == B


def test_parameters_that_a_shape_does_not_have_become_the_nearest(resolve):
    found = resolve([rule(tuned(2, words=1024))])
    assert found.step == "rule"
    assert 1 <= dict(found.schedule.params)["words"] < 1024


def test_a_near_row_comes_before_a_rule_and_a_far_one_after(resolve):
    assert resolve([rule(A)], {"workload": replace(W, n=80), "schedule": B}).step == "nearest"


def test_a_far_row_comes_after_a_measured_rule(resolve):
    assert resolve([rule(A)], {"workload": FAR, "schedule": B}).step == "rule"


def test_a_far_row_comes_before_a_reasoned_rule(resolve):
    found = resolve([rule(A, shapes=0, why="bandwidth")], {"workload": FAR, "schedule": B})
    assert (found.step, found.schedule) == ("nearest", B)


def test_a_measured_rule_comes_before_a_reasoned_one(resolve):
    assert resolve([rule(A, shapes=0), rule(B, level=4)]).schedule == B


@pytest.mark.parametrize("w", [replace(W, n=n, k=4096, m=m) for n in (256, 4096, 128256) for m in (1, 4)])
def test_metals_linears_are_served_by_reasoned_rules_until_somebody_measures(tmp_path, w):
    """Parameters that the rule does not give are those of the default."""
    rules = parse(json.loads((ROOT / "db/rows/metal-reasoned.json").read_text())).rules
    write_sqlite(tmp_path / "packaged", EMPTY, rules)
    metal = Target("METAL", "Apple9", "Apple M3 Max", 40)
    found = Server(Lookup(tmp_path / "none", tmp_path / "packaged"), "on").resolve(w, metal)
    assert (found.step, found.schedule.variant, found.rule.reasoned) == ("rule", "warp", True)
    assert found.rule.why
    assert dict(found.schedule.params)["warps"] == 2
    assert found.schedule.params in [tuple(sorted(p.items())) for p in variants(w, "METAL")["warp"].params(w)]


def test_what_was_found_wrong_here_is_not_served_by_a_rule(resolve):
    wrong = {"workload": W, "schedule": A, "stage": Stage.VERIFY, "outcome": Outcome.WRONG_RESULT, "samples": ()}
    assert resolve([rule(A, B)], {**wrong, "error": 1.0, "reason": "wrong"}).schedule == B


@pytest.mark.parametrize("damage", ["schedules = printf('%.50000c', '[')", "schedules = '[]'", "loss = 'x'"])
def test_a_damaged_rule_is_passed_over(tmp_path, here, damage):
    write_sqlite(tmp_path / "packaged", EMPTY, [rule(A), rule(B, level=1)])
    change(tmp_path / "packaged", f"UPDATE rules SET {damage} WHERE kind = '{classes(W)[0]}'")
    lookup = Lookup(tmp_path / "user", tmp_path / "packaged")
    assert lookup.rules(backend(), here.arch, classes(W)) == (rule(B, level=1),)
    assert any("a rule cannot be read" in problem for problem in lookup.problems)
