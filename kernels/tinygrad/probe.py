"""A program for a process of its own that opens a device and computes on it. It prints JSON, or fails."""

from __future__ import annotations

# A device counts when it opens and computes: one that opens may still lack its compiler. A CPU in disguise (the row's
# `on_cpu`) is told apart before it compiles anything, which takes PoCL a second: "quick".
PROBE = """
import ctypes, json, sys
from tinygrad import Device, Tensor
device, cpu = Device[Device.DEFAULT], False
# on_cpu
quick = cpu and "quick" in sys.argv
if not quick and (seen := (Tensor([1.0, 2.0, 3.0]) * 2).tolist()) != [2.0, 4.0, 6.0]:
    raise RuntimeError(f"2 * [1, 2, 3] gave {seen}")
print(json.dumps({"cpu": cpu, "name": str(getattr(device, "device_name", device.arch or ""))}))
"""
