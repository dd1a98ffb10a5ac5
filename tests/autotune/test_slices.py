"""Slices of a loop (THREAD): in the space and the strategies, from a store to a launch, and in what is served."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from support.kernel_runs import backend, compiled, device, run, run_program
from support.renderers import CL, THREADED
from support.store_rows import fact, opened
from tinygrad.helpers import Context

from autotune.search.space import Candidate, Space
from autotune.search.strategies import BeamSearch, RandomSearch, Task
from db.exchange import export_payload, import_payload
from db.lookup import Lookup
from db.records import Opt, Outcome, Schedule, Target, Workload
from db.store import Store
from kernels.devices import describe_target, named
from kernels.host import executor, threads
from kernels.ops.references import make_case
from kernels.ops.registry import kernel_digest
from kernels.serve import defaults, sink
from kernels.serve.limits import Limits
from kernels.serve.resolution import Resolution, look_up
from kernels.serve.server import Server
from kernels.tinygrad import facts

W = Workload("linear", "Q8_0", 4096, 64)
BARE = Schedule("dequant", (("lanes", 1), ("words", 1)), ())
HOST = Target("CPU", "x86_64-avx2", "a processor", 8)


def sliced(amount: int) -> Schedule:
    return replace(BARE, opts=(Opt("THREAD", None, amount, "1"),))


def amounts(schedule: Schedule) -> list[object]:
    return [o.arg for o in schedule.opts or () if o.op == "THREAD"]


@pytest.fixture(scope="module")
def space() -> Space:
    return Space(W, THREADED, Limits.of(THREADED, W))


def test_the_space_has_more_slices_than_there_are_processors(space: Space) -> None:
    with Context(NUM_CPU_THREADS=1):
        found = {amount for c in space.children(BARE) for amount in amounts(c.schedule)}
    assert {2, 8, 64} <= found
    assert max(found) == 64  # type: ignore[type-var]
    assert not any(amounts(c.schedule) for c in Space(W, CL, Limits.of(CL, W)).children(BARE))


def test_a_kernel_of_too_many_slices_is_neither_tried_nor_served(space: Space) -> None:
    assert space.candidate(sliced(64)) is not None
    assert space.candidate(sliced(128)) is None
    assert sink.can_build(W, sliced(64), "CPU:X86", THREADED)
    assert not sink.can_build(W, sliced(128), "CPU:X86", THREADED)


def test_another_number_of_slices_is_one_step_away(space: Space) -> None:
    parent = replace(BARE, opts=(*(sliced(8).opts or ()), Opt("UPCAST", None, 4, "1")))
    moved = [c.schedule for c in space.children(parent) if len(c.schedule.opts or ()) == 2]
    same = [s for s in moved if (s.variant, s.params) == (parent.variant, parent.params)]
    assert {amount for s in same for amount in amounts(s)} == {2, 4, 16, 32, 64}
    assert all((s.opts or ())[1].op == "UPCAST" for s in same)


def slices_of(c: Candidate) -> float:
    return 1.0 / c.sizes.slices


def test_beams_and_walks_reach_the_most_slices(space: Space) -> None:
    beam = BeamSearch(Task(space, seeds=[BARE]), width=1)
    for _ in range(40):
        for c in beam.propose(4):
            beam.observe(c, slices_of(c))
        if beam.best is not None and beam.best[1].sizes.slices == 64:
            break
    else:
        pytest.fail(f"best: {beam.best}")
    walk = RandomSearch(Task(space))
    assert any(c.sizes.slices > 1 for c in itertools.chain.from_iterable(walk.propose(8) for _ in range(6)))


def test_every_slice_computes_its_share_in_the_executor_and_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if backend() != "CPU":
        pytest.skip("slices are for the host's processor")
    assert run(W, sliced(64)).outcome is Outcome.OK
    monkeypatch.setattr(device(), "executes", False)
    verdict = run_program(W, BARE.variant, compiled(W, sliced(64)), make_case(W, 1))
    assert verdict.outcome is Outcome.OK


def test_slices_travel_from_one_store_to_the_launches_of_another(tmp_path: Path) -> None:
    if backend() != "CPU":
        pytest.skip("slices are for the host's processor")
    target = describe_target(named(device().name))
    digest = kernel_digest(W)
    there = opened(tmp_path / "there", fact(workload=W, target=target, kernel_digest=digest, schedule=sliced(16)))
    here = Store.open(tmp_path / "here")
    import_payload(here, export_payload(there), "local")
    server = Server(Lookup(tmp_path / "here", tmp_path / "packaged"), "on")
    served = server.serve(W, device().name)
    assert (served.step, served.schedule) == ("user", sliced(16))
    assert run(W, served.schedule).outcome is Outcome.OK


def resolved(path: Path, tuned: int, asked: int, w: Workload = W) -> Resolution:
    """What serves W with `asked` threads after a sweep of `w` with `tuned`."""
    store = path / f"{tuned} {w.n}"
    digest = kernel_digest(w)
    opened(
        store,
        fact(workload=w, target=replace(HOST, compute_units=tuned), kernel_digest=digest, schedule=sliced(16)),
    )
    here = replace(HOST, compute_units=asked)
    return look_up(W, here, Lookup(store, path / "packaged"), "on", lambda w, s: True)


@pytest.mark.parametrize(
    ("tuned", "asked", "step"),
    [(8, 8, "user"), (8, 12, "same_arch"), (8, 2, "same_arch"), (8, 16, "default"), (2, 64, "default")],
)
def test_a_schedule_of_few_threads_is_not_served_to_many(tmp_path: Path, tuned: int, asked: int, step: str) -> None:
    found = resolved(tmp_path, tuned, asked)
    assert found.step == step
    assert (found.served is not None and found.served.target.compute_units) == (tuned if step != "default" else False)


@pytest.mark.parametrize(("asked", "step"), [(8, "nearest"), (12, "nearest"), (16, "default")])
def test_nor_is_that_of_another_shape(tmp_path: Path, asked: int, step: str) -> None:
    assert resolved(tmp_path, 8, asked, replace(W, n=5120)).step == step


def test_on_a_gpu_the_units_only_say_which_device_is_nearest(tmp_path: Path) -> None:
    w = Workload("linear", "Q8_0", 4096, 64)
    small = Target("CL", "gfx", "a small one", 8)
    opened(tmp_path / "store", fact(workload=w, target=small, kernel_digest=kernel_digest(w), schedule=BARE))
    lookup, large = Lookup(tmp_path / "store", tmp_path / "packaged"), replace(small, device="large", compute_units=64)
    assert look_up(w, large, lookup, "on", lambda w, s: True).step == "same_arch"


def test_defaults_have_slices_where_threads_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = Workload("linear", "Q4_K", 2048, 2048), Workload("linear", "Q8_0", 32, 64)
    monkeypatch.setattr(executor, "available", lambda: True)
    assert amounts(defaults.defaults(large, "CPU")[0]) == [64]
    assert not any(map(amounts, defaults.defaults(small, "CPU")))  # a slice would be done in a microsecond
    assert not any(amounts(s) for device in ("CUDA", "METAL", "DSP") for s in defaults.defaults(large, device))
    monkeypatch.setattr(executor, "available", lambda: False)
    assert not any(map(amounts, defaults.defaults(large, "CPU")))


def test_threads_are_the_compute_units_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if backend() != "CPU":
        pytest.skip("slices are for the host's processor")
    name = named(device().name)
    with monkeypatch.context() as patch:
        patch.setenv(threads.VARIABLE, "3")
        assert describe_target(name).compute_units == (3 if executor.available() else 1)
        patch.setattr(facts, "executes", lambda renderer: False)
        patch.setenv(threads.VARIABLE, "4")
        assert describe_target(name).compute_units == 1
