"""Sweeps by workers in processes of their own, whose devices are made up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("distributed", reason="needs the extra fleet")

from support import fake_fleet
from support.cpu_device import cpu
from support.store_rows import schedule

from autotune.fleet import client, cluster
from autotune.fleet.client import Fleet, Part, groups
from autotune.fleet.cluster import Place, connected
from autotune.fleet.errors import FleetError
from autotune.result import Result
from autotune.settings import Settings
from autotune.workloads import ModelPlan, ModelWorkload
from db.codec import schedule_digest
from db.records import Workload
from db.store import Store
from kernels.ops.registry import kernel_digest

PRELOAD = ("support.fake_fleet", cluster.PRELOAD)


def workloads(*ns: int) -> ModelPlan:
    return ModelPlan("llama", tuple(ModelWorkload(Workload("linear", "Q8_0", n, 64), 1, ("x",), 1000) for n in ns), ())


class Swept:
    """A fleet of made-up devices and a store."""

    def __init__(self, client: Any, folder: Path, store: Path) -> None:
        self.client, self.folder = client, folder
        self.store = Store.open(store)

    def fleet(self, *ns: int) -> Fleet:
        parts = [Part(g, Settings(), self.store, workloads(*ns), "autotune sweep x") for g in groups(self.client)]
        return Fleet(self.client, parts)

    def rows(self, *ns: int) -> list[tuple[int, str]]:
        return [(row.result.workload.n, row.result.status) for _, row in self.fleet(*ns).rows()]

    def done(self) -> list[tuple[int, int, float, float, int]]:
        """(n, process, begin, end, neighbours known) of each task that was done."""
        lines = [file.read_text().split() for file in self.folder.glob("done-*")]
        return [(int(n), int(pid), float(begin), float(end), int(near)) for n, pid, begin, end, near in lines]


@contextmanager
def started(folder: Path, *targets: str) -> Iterator[Any]:
    environments = [{"FAKE_FLEET": str(folder), "FAKE_TARGET": target} for target in targets]
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster, "local_environments", lambda settings, count: environments)
            reached = stack.enter_context(connected(Place(), Settings(), PRELOAD))
        yield reached


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    folder = tmp_path_factory.mktemp("fleet")
    with started(folder, "made up", "made up") as reached:
        yield reached, folder


@pytest.fixture
def two(running: tuple[Any, Path], tmp_path: Path) -> Swept:
    """Two devices of one target."""
    reached, folder = running
    for file in folder.iterdir():
        file.unlink()
    reached.wait_for_workers(2, timeout=60)
    return Swept(reached, folder, tmp_path / "store.sqlite")


def test_a_fleet_shares_the_work_of_one_target_and_stores_each_result(two: Swept) -> None:
    ns = tuple(range(32, 32 * 13, 32))
    assert sorted(two.rows(*ns)) == [(n, "tuned") for n in ns]
    assert {w.row.measurement.workload.n for w in two.store.finals()} == set(ns)
    assert two.store.stats().rows["measurements"] == 2 * len(ns)
    done = sorted(two.done(), key=lambda d: d[2])
    assert len({pid for _, pid, *_ in done}) == 2
    assert done[-1][4] == 3  # a late task is told of three neighbours
    for process in {pid for _, pid, *_ in done}:
        spans = [(begin, end) for _, pid, begin, end, _ in done if pid == process]
        assert all(a_end <= b_begin for (_, a_end), (b_begin, _) in pairwise(spans))
    assert two.rows(*ns) == [(n, "known") for n in ns]
    # a worker that is lost costs one retry, and no row
    assert sorted(two.rows(512, fake_fleet.KILLS_ONCE, 544)) == [(512, "tuned"), (544, "tuned"), (1001, "tuned")]
    assert two.store.stats().rows["measurements"] == 2 * len(ns) + 6


def test_what_two_models_share_is_tuned_anew_once(two: Swept) -> None:
    (group,) = groups(two.client)
    done: dict[Workload, Result] = {}
    models = [workloads(32, 64), workloads(64, 96)]
    parts = [Part(group, Settings(), two.store, plan, "x", again=True, done=done) for plan in models]
    rows = [(row.result.workload.n, row.result.status) for _, row in Fleet(two.client, parts).rows()]
    assert sorted(rows) == [(32, "tuned"), (64, "known"), (64, "tuned"), (96, "tuned")]
    assert Counter(n for n, *_ in two.done()) == Counter((32, 64, 96))


@pytest.mark.slow
def test_a_workload_that_kills_each_worker_is_left_out_and_its_candidate_is_marked(two: Swept) -> None:
    (target,) = {g.target for g in groups(two.client)}
    rows = {row.result.workload.n: row.result for _, row in two.fleet(fake_fleet.KILLS, 32, fake_fleet.FAILS).rows()}
    assert {n for n, r in rows.items() if r.status == "failed"} == {fake_fleet.KILLS, fake_fleet.FAILS}
    assert rows[fake_fleet.KILLS].reason.startswith("2 workers were lost while they tuned it, 2 of them while a cand")
    assert rows[fake_fleet.FAILS].reason == "made up: no room"
    w = Workload("linear", "Q8_0", fake_fleet.KILLS, 64)
    assert two.store.attempts(w, target, kernel_digest(w)) == {schedule_digest(schedule("tried")): 2}
    assert {m.row.measurement.workload.n for m in two.store.finals()} == {32}


def test_two_clients_share_devices_and_store(two: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = iter(("elsewhere 1 1", "elsewhere 2 2"))
    monkeypatch.setattr(client, "owner", lambda: next(owners))
    ns = tuple(range(32, 32 * 13, 32))
    found: list[list[tuple[int, str]]] = [[], []]
    threads = [threading.Thread(target=lambda i=i: found[i].extend(two.rows(*ns))) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [sorted(n for n, _ in rows) for rows in found] == [list(ns)] * 2
    assert Counter(n for n, *_ in two.done()) == Counter(ns)
    assert two.store.stats().rows["measurements"] == 2 * len(ns)


@pytest.mark.slow
def test_each_target_is_tuned_for_and_a_sweep_that_is_stopped_keeps_what_came_back(tmp_path: Path) -> None:
    before = psutil.Process().children(recursive=True)
    with started(tmp_path, "one", "other") as reached:
        swept = Swept(reached, tmp_path, tmp_path / "store.sqlite")
        assert sorted(swept.rows(32, 64)) == [(32, "tuned")] * 2 + [(64, "tuned")] * 2
        assert {(str(w.row.measurement.target), w.row.measurement.workload.n) for w in swept.store.finals()} == {
            (f"CL / made / {name} / 4", n) for name in ("one", "other") for n in (32, 64)
        }
        workers = [p for p in psutil.Process().children(recursive=True) if p not in before]
        workers = [p for p in workers if "resource_tracker" not in " ".join(p.cmdline())]
        assert len(workers) == 2
        coming = swept.fleet(96, fake_fleet.SLOW).rows()
        assert {next(coming)[1].result.workload.n for _ in range(2)} == {96}
        begun = time.monotonic()
        coming.close()
        assert len(swept.store.finals()) == 6
    assert time.monotonic() - begun < 20
    assert psutil.wait_procs(workers, timeout=10)[1] == []


@pytest.mark.parametrize("text", ["", "local:0", "local:x", "http://host:1", "tcp://", "local:-1", "locals"])
def test_a_fleet_that_is_none(text: str) -> None:
    with pytest.raises(FleetError, match="--fleet"):
        Place.parse(text)


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with (
        pytest.raises(FleetError, match=r"tcp://127.0.0.1:1 cannot be used"),
        connected(Place.parse("tcp://127.0.0.1:1"), Settings()),
    ):
        pass


@pytest.mark.slow
def test_more_workers_than_processors_are_refused() -> None:
    with pytest.raises(FleetError, match=r"local:9999: CPU.* has"):
        cluster.local_environments(Settings(device=cpu().device), 9999)
