"""How a test loads models: with activations in float32, and in int8 where the device under test multiplies it."""

from __future__ import annotations

import os

from kernels.host.int8 import int8_dot
from support.cpu_device import cpu

EXACT = (True, False) if int8_dot(os.environ.get("DEV") or cpu().device) else (True,)
