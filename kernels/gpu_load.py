"""Which GPUs there are, and how busy one is before this process puts work on it; by what drivers bring along."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

Busy = Callable[[], float | None]
"""Share of the last moments in which the GPU worked, 0 to 1; None where that is not known."""


def unknown() -> float | None:
    return None


def nvidia() -> float | None:
    """Of the first GPU that CUDA sees, by nvidia-smi."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    command = ["nvidia-smi", "-i", gpu, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        return _share(subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout)
    except (OSError, subprocess.SubprocessError):
        return None


def one() -> tuple[str, ...]:
    """The one device of a backend whose devices cannot be told apart by the environment."""
    return ("0",)


def nvidia_seen() -> tuple[str, ...]:
    """The GPUs that CUDA sees here, as CUDA_VISIBLE_DEVICES names them; the first where that cannot be known."""
    if given := os.environ.get("CUDA_VISIBLE_DEVICES", ""):
        return tuple(name.strip() for name in given.split(","))
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return one()
    return tuple(line.strip() for line in listed.splitlines() if line.strip().isdecimal()) or one()


def amd(drm: Path = Path("/sys/class/drm")) -> float | None:
    """Of the busiest of AMD's GPUs, by amdgpu."""
    try:
        shares = [_share(path.read_text()) for path in drm.glob("card*/device/gpu_busy_percent")]
    except OSError:
        return None
    return max((share for share in shares if share is not None), default=None)


def _share(percent: str) -> float | None:
    return int(percent) / 100 if percent.strip().isdecimal() else None
