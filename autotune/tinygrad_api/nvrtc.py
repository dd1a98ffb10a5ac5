"""The library that compiles CUDA kernels."""

from __future__ import annotations

import ctypes


def nvrtc_library() -> tuple[str, str] | None:
    """Its file and version, where tinygrad itself finds it: in system folders and through NVRTC_PATH."""
    from tinygrad.runtime.autogen import nvrtc

    if nvrtc.dll.nm not in nvrtc.dll._loaded_:
        return None
    status = nvrtc.nvrtcVersion(major := ctypes.c_int(), minor := ctypes.c_int())
    return str(nvrtc.dll._name), f"{major.value}.{minor.value}" if status == 0 else f"error {status}"
