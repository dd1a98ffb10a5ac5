"""executor.c as a library: built once by the host's C compiler, kept among the compiled code of `kernels.cache`.

What is loaded is what was built or checked, in memory or in a temporary file: nobody can exchange it in between.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from kernels.cache import EXECUTOR, CacheWarning
from kernels.tinygrad import hostcc

SOURCE = Path(__file__).with_name("executor.c")
FLAGS = ("-O2", "-shared", "-fPIC", "-pthread")
MACHINES, SYSTEMS = ("x86_64", "arm64"), ("Linux", "Darwin")
BUILD_SECONDS = 120


@dataclass(frozen=True)
class Found:
    """The library, None if there is none. how: where it is from, or why there is none."""

    library: ctypes.CDLL | None
    how: str


def library() -> ctypes.CDLL | None:
    """The library of executor.c, if there is one."""
    return found().library


@functools.cache
def found() -> Found:
    """The library of executor.c; one warning is given where it cannot be built or loaded. Without any C compiler there
    is no warning: tinygrad does without one too."""
    if hostcc.machine() not in MACHINES or platform.system() not in SYSTEMS:
        return Found(None, f"there is none for {platform.system()} on {hostcc.machine()}")
    try:
        code, how = _kept_or_built()
        return Found(None if code is None else _declared(_loaded(code)), how)
    except (OSError, subprocess.SubprocessError, AttributeError) as e:
        why = (
            e.stderr.decode(errors="replace").strip()[:200] if isinstance(e, subprocess.CalledProcessError) else str(e)
        )
        warnings.warn(f"launches are made by Python, which is slower: executor.c: {why}", CacheWarning, stacklevel=2)
        return Found(None, f"it cannot be built or loaded: {why}")


def _kept_or_built() -> tuple[bytes | None, str]:
    source = SOURCE.read_bytes()
    key = f"{hashlib.sha256(source).hexdigest()} {FLAGS} {platform.system()} {platform.machine()} {platform.libc_ver()}"
    if (kept := EXECUTOR.read(key)) is not None:
        return kept, "from the cache"
    compiler = hostcc.find()
    if compiler is None:
        return None, "there is no C compiler to build it"
    built = _built(compiler.path)
    EXECUTOR.write(key, built)
    return built, f"built by {compiler.path}"


def _built(compiler: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="autotune-executor-") as folder:
        out = Path(folder, "executor.so")
        subprocess.run(
            [compiler, *FLAGS, str(SOURCE), "-o", str(out)], check=True, capture_output=True, timeout=BUILD_SECONDS
        )
        return out.read_bytes()


def _loaded(code: bytes) -> ctypes.CDLL:
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("autotune-executor", os.MFD_CLOEXEC)
        try:
            with open(file, "wb", closefd=False) as writer:
                writer.write(code)
            return ctypes.CDLL(f"/proc/self/fd/{file}")
        finally:
            os.close(file)
    with tempfile.TemporaryDirectory(prefix="autotune-executor-") as folder:
        path = Path(folder, "executor.so")
        path.write_bytes(code)
        return ctypes.CDLL(str(path))


def _declared(loaded: ctypes.CDLL) -> ctypes.CDLL:
    loaded.executor_run.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_double)
    loaded.executor_run.restype = ctypes.c_int64
    loaded.executor_threads.argtypes = (ctypes.c_int,)
    loaded.executor_threads.restype = ctypes.c_int
    loaded.executor_forked.argtypes = ()
    loaded.executor_forked.restype = None
    return loaded
