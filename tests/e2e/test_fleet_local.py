"""`autotune sweep --fleet local:2` as a user has it, on two processors of this machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.command import descendants, events, left_running, start
from support.cpu_device import cpu

pytest.importorskip("distributed", reason="needs the extra fleet")

from db.store import Store

ARGUMENTS = ("sweep", "--demo", "--no-linears", "--budget", "0.1", "--beam", "1", "--json")


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
def test_a_fleet_of_two_processors_ends_with_ctrl_c_and_keeps_what_came_back(tmp_path: Path) -> None:
    db = tmp_path / "store.sqlite"
    sweep = start(*ARGUMENTS, "--device", cpu().device, "--fleet", "local:2", db=db)
    assert sweep.stdout is not None
    first, second = (events(sweep.stdout.readline())[0] for _ in range(2))
    children = descendants(sweep)
    assert first["dashboard"].startswith("http://127.0.0.1:")
    assert [target["workers"] for target in first["fleet"]] == [2]
    assert second["event"] == "workload"
    for pid in [sweep.pid, *(c.pid for c in children if os.getpgid(c.pid) == os.getpgid(sweep.pid))]:  # as a terminal
        os.kill(pid, signal.SIGINT)
    output, errors = sweep.communicate(timeout=60)
    assert errors.splitlines() == ["stopped; what was measured is stored, and the same command goes on from there"]
    assert sweep.returncode == 130
    assert left_running(children) == []
    printed = [second, *events(output)]
    assert {w.row.measurement.workload.n for w in Store.read(db).finals()} == {e["workload"]["n"] for e in printed}
