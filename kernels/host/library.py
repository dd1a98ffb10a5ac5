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
from pathlib import Path

from kernels.cache import EXECUTOR, CacheWarning
from kernels.tinygrad import hostcc

SOURCE = Path(__file__).with_name("executor.c")
FLAGS = ("-O2", "-shared", "-fPIC", "-pthread")
MACHINES = ("x86_64", "arm64")
BUILD_SECONDS = 120


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library of executor.c; None, with one warning, where it cannot be built or loaded. Without any C compiler
    there is no warning: tinygrad does without one too."""
    if hostcc.machine() not in MACHINES or platform.system() not in ("Linux", "Darwin"):
        return None
    try:
        code = _kept_or_built()
        return None if code is None else _declared(_loaded(code))
    except (OSError, subprocess.SubprocessError, AttributeError) as e:
        said = e.stderr.decode(errors="replace").strip() if isinstance(e, subprocess.CalledProcessError) else str(e)
        why = f"executor.c cannot be built or loaded ({said[:200]})"
        warnings.warn(f"launches are made one by one, which is slower: {why}", CacheWarning, stacklevel=2)
        return None


def _kept_or_built() -> bytes | None:
    source = SOURCE.read_bytes()
    key = f"{hashlib.sha256(source).hexdigest()} {FLAGS} {platform.system()} {platform.machine()} {platform.libc_ver()}"
    keeps = os.environ.get("CCACHE", "1") != "0"  # tinygrad's variable, which turns all caches off
    if keeps and (kept := EXECUTOR.read(key)) is not None:
        return kept
    compiler = hostcc.find()
    if compiler is None:
        return None
    built = _built(compiler.path)
    if keeps:
        EXECUTOR.write(key, built)
    return built


def _built(compiler: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="autotune-executor-") as folder:
        out = Path(folder, "executor.so")
        subprocess.run(
            [compiler, *FLAGS, str(SOURCE), "-o", str(out)], check=True, capture_output=True, timeout=BUILD_SECONDS
        )
        return out.read_bytes()


def _loaded(code: bytes) -> ctypes.CDLL:
    if hasattr(os, "memfd_create"):
        # stays open, since the system takes files of one name for one library
        file = os.memfd_create("autotune-executor", os.MFD_CLOEXEC)
        with open(file, "wb", closefd=False) as writer:
            writer.write(code)
        return ctypes.CDLL(f"/proc/{os.getpid()}/fd/{file}")
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
