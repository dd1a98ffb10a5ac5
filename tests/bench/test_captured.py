"""Launches and seconds of captured functions: every call counts once, and what feeds a chained call does not."""

from __future__ import annotations

import os
import subprocess
import sys

from support.cpu_device import cpu

CODE = """
from kernels.devices import activate, choose_device
activate(choose_device())
from tinygrad import Tensor
from bench.captured import captured, chained
x = Tensor([[3.0, 1.0, 2.0]]).realize()
found = captured(lambda: [(x + i).contiguous() for i in range(5)], 5, rounds=2)
assert found.launches == 1 and found.seconds > 0
assert chained(lambda x, _: x, x, 3, rounds=2).launches == 0
seen = []

def two(x, number):
    seen.append(number)
    first = (x * 2).contiguous()
    return first, first.sum(-1)

assert chained(two, x, 3, rounds=2).launches == 2
assert seen[:3] == [0, 1, 2]
"""


def test_launches_of_calls() -> None:
    choice = cpu()
    env = {**os.environ, "DEV": choice.device, "PYTHONPATH": os.pathsep.join(sys.path)}
    env |= {"CC": choice.cc} if choice.cc else {}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
