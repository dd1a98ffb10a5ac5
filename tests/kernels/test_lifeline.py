"""A child ends with its parent, whatever it is at, and takes along what it started."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kernels.lifeline import LIFELINE

ROOT = Path(__file__).parents[2]
SPAWN = """
import subprocess, sys
child = [sys.executable, "-c", sys.argv[1]]
subprocess.Popen(child, stdin=subprocess.PIPE, process_group=0 if sys.argv[2] == "leads" else None).wait()
"""
WITH_A_CHILD = (
    "import subprocess; subprocess.Popen(['sleep', '100'], stdin=subprocess.DEVNULL); print('there', flush=True);"
)
PROBE = """
from kernels import devices
devices.PROBE = "import sys, time; print('there', file=sys.stderr, flush=True); time.sleep(100)"
devices.subprocess.run = lambda command, capture_output, **options: devices.subprocess.Popen(command, **{
    name: value for name, value in options.items() if name not in ("timeout", "text")}).wait()
devices.probe_device("CPU")
"""


def orphans(*command):
    """The processes below `command` that live on after it was killed, once one of them has said that it is there."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", *command], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as parent:
        try:
            assert parent.stdout.readline() == b"there\n"
            below = psutil.Process(parent.pid).children(recursive=True)
        finally:
            parent.send_signal(signal.SIGKILL)
    assert below
    _, alive = psutil.wait_procs(below, timeout=5)
    for process in (alive := [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]):
        process.kill()
    return alive


@pytest.mark.parametrize("hang", ["import time; time.sleep(100)", "3 ** 10**9"])
def test_a_group_dies_with_its_leaders_parent(hang):
    if "**" in hang and not hasattr(fcntl, "F_SETSIG"):
        pytest.skip("only Linux ends a process that holds the interpreter's lock")
    assert orphans(SPAWN, LIFELINE + WITH_A_CHILD + hang, "leads") == []


def test_one_that_leads_no_group_dies_alone_with_its_parent():
    assert orphans(SPAWN, LIFELINE + "print('there', flush=True); import time; time.sleep(100)", "follows") == []


def test_a_probe_of_a_device_dies_with_who_asked():
    assert orphans(PROBE) == []
