"""How sweeps know each other."""

import os
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize(
    "name", ["elsewhere 1 1", "", "x", f"{owner()} more"], ids=["elsewhere", "none", "odd", "long"]
)
def test_nothing_is_known_of_other_hosts(name):
    assert not ended(name)
