"""The command that a newcomer types first, and Ctrl-C in the middle of it."""

import json
import signal
import time
from pathlib import Path

import pytest
from support.command import autotune, descendants, events, left_running, start


def planned(db: Path, device: str) -> int:
    """How many workloads a sweep on `device` has: a dry run opens none, and takes it for a GPU unless it is told."""
    return len(json.loads(autotune("sweep", "--demo", "--dry-run", "--device", device, "--json", db=db)))


@pytest.mark.nightly
def test_the_demo_ends_with_a_table_of_validated_schedules(tmp_path: Path) -> None:
    db = tmp_path / "store.sqlite"
    text = autotune("sweep", "--demo", "--budget", "0.5", "--beam", "1", db=db)
    device, _, _ = text.removeprefix("device ").partition(": ")
    count = planned(db, device)
    assert text.count(" m=1 ") == count
    assert "(geometric mean)" in text
    assert str(db) in text
    assert "as fast" in (last := text.splitlines()[-1]) or "a token: " in last
    assert autotune("list", db=db).count(" m=1 ") == count
    assert f"{count} schedules checked, 0 not right" in autotune("verify", db=db)


@pytest.mark.parametrize("started", ["start", pytest.param("workload", marks=pytest.mark.nightly)])
def test_ctrl_c_keeps_what_was_measured_and_leaves_nothing_running(tmp_path: Path, started: str) -> None:
    db = tmp_path / "store.sqlite"
    budget = "60" if started == "start" else "0.5"
    process = start("sweep", "--demo", "--json", "--budget", budget, "--beam", "1", db=db)
    assert process.stdout is not None
    done = 0
    for line in process.stdout:
        (event,) = events(line)
        done += event["event"] == "workload"
        if event["event"] == started:
            break
    deadline = time.monotonic() + 30
    while len(children := descendants(process)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.strip() == "stopped; what was measured is stored, and the same command goes on from there"
    assert children
    assert left_running(children) == []
    if not done:
        return
    rest = events(autotune("sweep", "--demo", "--json", "--budget", "0.5", "--beam", "1", db=db))
    statuses = [e["status"] for e in rest if e["event"] == "workload"]
    assert len(statuses) == planned(db, rest[0]["device"])
    assert done <= statuses.count("known") <= done + 1  # the next may have been stored, not printed


@pytest.mark.slow
def test_in_the_background_ctrl_c_is_ignored_and_kill_keeps_what_was_measured(tmp_path: Path) -> None:
    """A shell lets what a script starts with `&` ignore SIGINT: Ctrl-C is for what runs in the foreground."""
    db = tmp_path / "store.sqlite"
    sweep = ("sweep", "--demo", "--json", "--budget", "0.1", "--beam", "1")
    process = start(*sweep, db=db, interrupt=signal.SIG_IGN)
    assert process.stdout is not None
    done = 0
    for line in process.stdout:
        (event,) = events(line)
        if event["event"] == "start":
            process.send_signal(signal.SIGINT)
        done += event["event"] == "workload"
        if done:
            break
    children = descendants(process)
    process.terminate()
    process.communicate(timeout=30)
    assert (done, process.returncode) == (1, 128 + signal.SIGTERM)
    assert children
    assert left_running(children) == []
    assert len(json.loads(autotune("list", "--json", db=db))) >= done
