"""Whether a device's driver may be here, judged by the platform and by files: nothing is opened and nothing is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

Missing = Callable[[Mapping[str, str]], str | None]
"""Environment -> why a device cannot be there; None if it may be."""


def nothing(environ: Mapping[str, str]) -> str | None:
    """Of a device that needs no driver, or whose driver leaves no trace."""
    return None


def files(*wanted: str) -> Missing:
    """Of a driver that makes at least one of these files."""

    def missing(environ: Mapping[str, str]) -> str | None:
        return None if any(map(os.path.exists, wanted)) else f"no driver: {' or '.join(wanted)} is missing"

    return missing


def macos(environ: Mapping[str, str]) -> str | None:
    return None if sys.platform == "darwin" else "needs macOS"


def opencl(environ: Mapping[str, str]) -> str | None:
    named = environ.get("OCL_ICD_VENDORS") or environ.get("OCL_ICD_FILENAMES")
    if sys.platform == "darwin" or named or any(Path("/etc/OpenCL/vendors").glob("*.icd")):
        return None
    return "no OpenCL driver in /etc/OpenCL/vendors"
