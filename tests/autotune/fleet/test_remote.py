"""A fleet behind a scheduler of its own: workers as `dask worker` starts them, and a scheduler that is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="needs the extra fleet")

from support import fake_fleet
from support.command import ROOT

from autotune.fleet import cluster
from autotune.fleet.client import Fleet, Part, groups
from autotune.fleet.cluster import Place, connected
from autotune.fleet.errors import FleetError
from autotune.settings import Settings
from autotune.workloads import ModelPlan, ModelWorkload
from db.records import Workload
from db.store import Store


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a scheduler with one worker, and its process."""
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    env = {**os.environ, "PYTHONPATH": path, "FAKE_FLEET": str(tmp_path)}
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    preloads = [option for name in ("support.fake_fleet", cluster.PRELOAD) for option in ("--preload", name)]
    common = ["--scheduler-file", str(file)]
    common += ["--host", "127.0.0.1", "--no-dashboard"]

    def begun(*command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    process = begun(*dask, "scheduler", *common, "--port", "0")
    worker = begun(*dask, "worker", *common, "--nthreads", "1", "--no-nanny", *preloads)
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], process
    finally:
        for one in (worker, process):
            one.kill()
            one.wait()


@pytest.mark.slow
def test_workers_of_a_scheduler_tune_and_a_lost_scheduler_ends_the_sweep(
    scheduler: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    address, process = scheduler
    store = Store.open(tmp_path / "store.sqlite")
    models = tuple(ModelWorkload(Workload("linear", "Q8_0", n, 64), 1, ("x",), 1000) for n in (32, 64, fake_fleet.SLOW))
    with pytest.raises(FleetError, match="lost"), connected(Place.parse(address), Settings()) as client:  # noqa: PT012
        client.wait_for_workers(1, timeout=60)
        (group,) = groups(client)
        part = Part(group, Settings(), store, ModelPlan("llama", models, ()), "autotune sweep x")
        with closing(Fleet(client, [part]).rows()) as rows:
            assert [next(rows)[1].result.status for _ in range(2)] == ["tuned", "tuned"]
            process.kill()
            next(rows)
    assert {w.row.measurement.workload.n for w in store.finals()} == {32, 64}
