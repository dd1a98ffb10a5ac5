"""Where NVIDIA's run-time compiler is, which compiles CUDA without a GPU."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def nvrtc() -> Path | None:
    """The library of the nvidia-cuda-nvrtc-cu12 wheel, if that is installed."""
    spec = find_spec("nvidia.cuda_nvrtc") if find_spec("nvidia") else None
    paths = [Path(p) / "lib" / "libnvrtc.so.12" for p in (spec.submodule_search_locations or [])] if spec else []
    return next((p for p in paths if p.exists()), None)
