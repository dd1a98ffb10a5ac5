"""Sweeps that run at once: what one does while another has a workload, or the device. On a made-up device."""

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.fake_tuning import TARGET, FakeClock, FakePool, FakeRunner
from support.store_rows import fact, opened, schedule
from support.tuning import DEFAULTS, W, world

from autotune import sweep, tune
from autotune.device_lock import alone
from autotune.load import Load
from autotune.owner import owner
from autotune.result import Result
from autotune.session import Session
from autotune.settings import Settings
from autotune.sweep import Sweep
from autotune.workloads import ModelPlan, ModelWorkload
from db.leases import Leases
from db.lookup import Lookup
from db.records import Outcome, Run, Stage, Workload
from db.store import Store
from kernels.devices import Choice
from kernels.ops.registry import kernel_digest
from kernels.serve import packaged

V = Workload("linear", "Q8_0", 32, 64)
ELSEWHERE = "elsewhere 1 1"


class Pool(FakePool):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Quiet(Load):
    """`said`: what it says at each question, then nothing."""

    def __init__(self, *said):
        self.said = list(said)

    def note(self):
        return self.said.pop(0) if self.said else ""


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """swept(*workloads, on_progress=..., load=...): the rows of a sweep, and what it told."""
    clock = FakeClock()
    monkeypatch.setattr(tune, "time", clock)
    monkeypatch.setattr(sweep, "CompilePool", lambda renderer, workers: Pool(world(), clock))
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    store = Store.open(tmp_path / "store.sqlite")
    settings = Settings(budget_seconds=0.0, beam_width=1)

    def run(*workloads, on_progress=lambda mw, p: None, load=None, store=store, **options):
        session = Session(settings, Choice("CL", "test"), store, FakeRunner(world()), load or Quiet())
        told = []

        def progress(mw, p):
            told.append(p.waiting)
            on_progress(mw, p)

        models = tuple(ModelWorkload(w, 1, ("x",), 1000) for w in workloads)
        rows = list(Sweep(session, ModelPlan("llama", models, ()), "test", **options).rows(progress))
        return [(row.result.workload, row.result.status) for row in rows], told

    return SimpleNamespace(run=run, store=store)


def key(w):
    return w, TARGET, kernel_digest(w)


def final(store, w, run="other"):
    store.start_run(Run(run, "another sweep", 4, 60.0))
    store.record(run, [fact(workload=w, target=TARGET, kernel_digest=kernel_digest(w))])


def test_what_another_stores_between_two_looks_is_no_fault(swept):
    class Racing:
        """A store in which another sweep ends W just after the first look at it."""

        def __getattr__(self, name):
            return getattr(swept.store, name)

        def has_final(self, *asked):
            found = swept.store.has_final(*asked)
            if found is None and not swept.store.finals():
                final(swept.store, W)
            return found

        def finals(self, *asked):
            found = swept.store.finals(*asked)
            if not found:
                final(swept.store, W)
            return found

    assert swept.run(W, store=Racing())[0] == [(W, "known")]


def test_another_workload_is_tuned_while_another_sweep_has_the_first(swept):
    theirs = Leases(swept.store, ELSEWHERE)
    assert theirs.take(*key(W)) is None

    def waiting(mw, p):
        if "another sweep" in p.waiting:
            final(swept.store, W)
            theirs.release(*key(W))

    rows, told = swept.run(W, V, on_progress=waiting)
    assert rows == [(V, "baseline wins"), (W, "known")]
    assert "another sweep of the same store" in told


def test_a_workload_that_another_sweep_gave_up_is_tuned(swept):
    theirs = Leases(swept.store, ELSEWHERE)
    theirs.take(*key(W))
    rows, _ = swept.run(W, on_progress=lambda mw, p: p.waiting and theirs.release(*key(W)))
    assert rows == [(W, "baseline wins")]


def test_the_lease_of_a_dead_sweep_holds_nobody_up(swept):
    host, pid, start = owner().rsplit(" ", 2)
    Leases(swept.store, f"{host} {pid} {int(start) - 100}").take(*key(W))
    rows, told = swept.run(W)
    assert rows == [(W, "baseline wins")]
    assert set(told) == {""}


def test_a_workload_is_leased_while_it_is_tuned_and_free_afterwards(swept):
    theirs, answers = Leases(swept.store, ELSEWHERE), set()
    swept.run(W, on_progress=lambda mw, p: answers.add(theirs.take(*key(W))))
    assert answers == {owner()}
    assert theirs.take(*key(W)) is None


def test_a_sweep_waits_for_the_device_and_says_so(swept):
    with contextlib.ExitStack() as held:
        held.enter_context(alone("CL"))
        rows, told = swept.run(W, on_progress=lambda mw, p: held.close())
    assert rows == [(W, "baseline wins")]
    assert told[0] == "the device"


def test_what_is_measured_under_load_is_of_a_run_that_says_so(swept):
    swept.run(W, V, load=Quiet("", "others keep it busy", "others keep it busy"))
    runs = [dict(w.row.run.versions).get("load") for w in swept.store.finals()]
    assert sorted(map(str, runs)) == ["None", "others keep it busy"]


def test_what_is_known_is_tuned_anew_if_asked(swept):
    assert swept.run(W)[0] == swept.run(W, again=True)[0] == [(W, "baseline wins")]
    assert swept.run(W)[0] == [(W, "known")]


def test_what_this_command_has_tuned_is_not_tuned_again(swept):
    swept.run(W, V)
    done = {W: Result(W, "tuned")}
    assert sorted(swept.run(W, V, again=True, done=done)[0], key=str) == [(V, "baseline wins"), (W, "known")]


def test_what_failed_in_this_command_is_not_tried_for_another_model(swept):
    assert swept.run(W, done={W: Result(W, "failed", reason="no room")})[0] == [(W, "failed")]


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The packaged store's row of W for this device."""
    row = fact(workload=W, target=TARGET, kernel_digest=kernel_digest(W), schedule=DEFAULTS[0])
    opened(tmp_path / "packaged.sqlite", row)
    monkeypatch.setattr(packaged, "_lookup", lambda: Lookup(tmp_path / "packaged.sqlite", tmp_path / "none"))
    return row


def test_what_the_package_has_for_the_device_is_searched_only_if_asked(swept, shipped):
    assert sorted(swept.run(W, V)[0], key=str) == [(V, "baseline wins"), (W, "shipped")]
    assert swept.run(W, again=True)[0] == [(W, "baseline wins")]


WRONG = {"stage": Stage.VERIFY, "outcome": Outcome.WRONG_RESULT, "samples": (), "reason": "made up"}


@pytest.mark.parametrize("known", [WRONG, {"schedule": schedule("other")}], ids=["wrong", "of less effort"])
def test_what_the_package_has_and_does_not_serve_is_searched(swept, shipped, known):
    swept.store.start_run(Run("earlier", "another command", 0, 0.0))
    swept.store.record("earlier", [replace(shipped, **known)])
    ((_, status),) = swept.run(W)[0]
    assert status in ("tuned", "baseline wins")
