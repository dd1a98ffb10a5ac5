"""How sweeps know each other, and what else the machine does."""

import os
import subprocess
import sys

import psutil
import pytest

from autotune import load
from autotune.owner import ended, owner


def test_this_process_has_not_ended():
    assert not ended(owner())


def test_a_process_that_is_gone_has_ended():
    program = "from autotune.owner import owner; print(owner())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended(done.stdout.strip())


def test_an_id_that_is_used_again_is_another_process():
    host, pid, start = owner().rsplit(" ", 2)
    assert ended(f"{host} {pid} {int(start) - 100}")
    assert int(pid) == os.getpid()


@pytest.mark.parametrize("name", ["elsewhere 1 1", "", "x", f"{owner()} more"])
def test_nothing_is_known_of_other_hosts(name):
    assert not ended(name)


@pytest.mark.parametrize(
    ("busy", "own", "others", "note"),
    [(4.0, 3.5, 0.25, ""), (4.0, 1.0, 1.5, "about 2 of 2"), (1.0, 1.5, 0.0, "")],
)
def test_load_is_what_others_do(monkeypatch, busy, own, others, note):
    """In two seconds all processors worked for `busy` seconds, `own` of them for us."""
    looks = iter([(10.0, 100.0, 5.0), (12.0, 100.0 + busy, 5.0 + own), *[(12.1, 200.0, 5.0 + own)] * 2])
    monkeypatch.setattr(load, "_busy_seconds", lambda: next(looks))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    seen = load.Load()
    assert seen.others() == others
    assert note in seen.note()
    assert bool(seen.note()) == bool(note)
