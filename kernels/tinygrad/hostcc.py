"""The C compiler behind tinygrad's CPU device: find clang, wrap the `ziglang` wheel, or patch tinygrad to do without.

tinygrad 0.14 compiles CPU kernels with the one executable that CC names (default: clang), for a bare ELF target that
gcc refuses. And every CPU renderer, even X86 which needs no compiler, fails without clang, because opening the device
compiles four helpers with it (`CPUDevice.__init__`). Only the queue behind HCQ2=1 ever runs them.
This module chooses no device and changes no environment: see `devices`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from db.errors import AutotuneError
from kernels.cache import cache_folder
from kernels.private_files import script

TINYGRAD = "0.14"  # the patch was written for this layout of tinygrad/runtime/ops_cpu.py
INSTALL = "install clang (Debian: apt-get install clang; macOS: xcode-select --install), or: pip install ziglang"

_ARCH = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_CPU_FLAG = {"x86_64": "-march=native", "arm64": "-mcpu=native"}
# what tinygrad's ClangCompiler passes, so that a compiler is judged by the job that it will get
_FLAGS = ["-c", "-x", "c", "-O2", "-fPIC", "-ffreestanding", "-fno-math-errno", "-nostdlib", "-fno-ident"]
_CLANGS = ("clang", *(f"clang-{n}" for n in range(23, 12, -1)), "/opt/homebrew/opt/llvm/bin/clang")
# An undefined instruction: a helper that is reached in spite of the checks below must stop, not return garbage.
_TRAP = {"x86_64": b"\x0f\x0b", "arm64": b"\x00\x00\x20\xd4"}
_HELPERS = ("signal_prog", "wait_prog", "timestamp_prog", "worker_prog")

_ZIG_WRAPPER = """#!/bin/sh
# zig as tinygrad's CC: one executable, and zig's name for the bare target. zig's own debug information,
# sanitizer and stack protector would need a runtime library that a kernel does not have.
n=$#
while [ "$n" -gt 0 ]; do
  arg=$1; shift; n=$((n - 1))
  case $arg in --target=*-none-unknown-elf) arg=${{arg%-none-unknown-elf}}-freestanding-none ;; esac
  set -- "$@" "$arg"
done
ZIG_GLOBAL_CACHE_DIR='{cache}' ZIG_LOCAL_CACHE_DIR='{cache}'
export ZIG_GLOBAL_CACHE_DIR ZIG_LOCAL_CACHE_DIR
exec '{zig}' cc -g0 -fno-sanitize=undefined -fno-stack-protector "$@"
"""


class PatchError(AutotuneError, ValueError):
    """CPU kernels cannot run here without a compiler: the message says why and what to install."""


@dataclass(frozen=True)
class HostCompiler:
    """`path` is one executable that takes clang's options; `kind` is "clang" or "zig"."""

    path: str
    kind: str


def machine() -> str:
    """tinygrad's name for this CPU's architecture: x86_64, arm64, or what the platform calls it."""
    name = platform.machine().lower()
    return _ARCH.get(name, name)


def find(environ: Mapping[str, str] = os.environ) -> HostCompiler | None:
    """The first compiler that really builds a kernel: CC, a clang on PATH, the ziglang wheel; None when there is none.

    Each candidate compiles one line (20..150 ms, once a process).
    """
    return find_clang(environ) or find_zig()


def find_clang(environ: Mapping[str, str] = os.environ) -> HostCompiler | None:
    path = environ.get("PATH", "")
    for name in filter(None, (environ.get("CC"), *_CLANGS)):
        found = shutil.which(name, path=path)
        if found is not None and refusal(found) is None:
            return HostCompiler(found, "zig" if Path(found).name.startswith("zig") else "clang")
    return None


def find_zig(cache: Path | None = None) -> HostCompiler | None:
    """The ziglang wheel behind a wrapper script, written to `cache` (default: in the user's cache folder, or where that
    cannot be used a temporary one)."""
    spec = importlib.util.find_spec("ziglang")
    for folder in spec.submodule_search_locations or () if spec else ():
        if (zig := Path(folder) / "zig").is_file():
            wrapper = str(_write_wrapper(zig.resolve(), cache))
            return HostCompiler(wrapper, "zig") if refusal(wrapper) is None else None
    return None


@lru_cache
def refusal(path: str) -> str | None:
    """Why the compiler at `path` cannot build tinygrad's CPU kernels, or None when it can."""
    arch = machine()
    if arch not in _CPU_FLAG:
        return f"tinygrad has no CPU kernels for {arch}"
    command = [path, *_FLAGS, f"--target={arch}-none-unknown-elf", _CPU_FLAG[arch], "-", "-o", "-"]
    source = b"void f(float*restrict a,int n){for(int i=0;i<n;i++)a[i]=__builtin_sqrtf(a[i]);}\n"
    try:
        done = subprocess.run(command, input=source, capture_output=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} does not run: {error}"
    if done.returncode == 0 and done.stdout[:4] == b"\x7fELF":
        return None
    lines = done.stderr.decode(errors="replace").split("\n")
    return f"{path} is not clang: {next(filter(None, lines), 'no ELF object came out')[:160]}"


@lru_cache
def compiler_version(path: str) -> str:
    """The first line of `path --version`, which names the product and its version; "unknown" when it won't say."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return next(filter(None, done.stdout.split("\n")), "unknown").strip()[:160]


def patch_tinygrad(environ: Mapping[str, str] = os.environ) -> bool:
    """Let CPU:X86 (and CPU:LLVM, where libLLVM is) open without any C compiler. True if tinygrad is patched.

    Does nothing, and returns False, when `find` has a compiler. Idempotent; this process only.
    Raises PatchError for a tinygrad with another layout than 0.14's, and for HCQ2=1, which needs the real helpers.
    """
    if find(environ) is not None:
        return False
    ops_cpu = _checked_ops_cpu(environ)
    if ops_cpu.do_to_program is not _trapping_helper:
        ops_cpu.do_to_program = _trapping_helper
    return True


def _checked_ops_cpu(environ: Mapping[str, str]) -> Any:
    from importlib.metadata import version as version_of

    version = version_of("tinygrad")
    if not version.startswith(f"{TINYGRAD}."):
        raise PatchError(f"no C compiler, and the patch for it is for tinygrad {TINYGRAD}, not {version}: {INSTALL}")
    if environ.get("HCQ2", "0") not in ("", "0"):
        raise PatchError(f"HCQ2={environ['HCQ2']} needs a C compiler for the CPU device: unset it, or {INSTALL}")
    if machine() not in _TRAP:
        raise PatchError(f"no C compiler, and tinygrad has no CPU kernels for {machine()} without one: {INSTALL}")
    ops_cpu = importlib.import_module("tinygrad.runtime.ops_cpu")

    used = set(ops_cpu.CPUDevice.__init__.__code__.co_names) | set(_inner_names(ops_cpu.CPUDevice.__init__.__code__))
    if missing := [n for n in (*_HELPERS, "do_to_program") if n not in used or not hasattr(ops_cpu, n)]:
        raise PatchError(f"tinygrad {version}: CPUDevice has no {', '.join(missing)} to patch: {INSTALL}")
    return ops_cpu


def _inner_names(code: Any) -> Iterator[str]:
    """Names used by the comprehensions inside `code`: nested code objects before Python 3.12, inlined after."""
    for const in code.co_consts:
        if hasattr(const, "co_names"):
            yield from const.co_names


def _trapping_helper(ast: Any, renderer: Any) -> Any:
    """Stands in for do_to_program(ast, renderer) in ops_cpu alone, where it builds the helpers and nothing else."""
    from tinygrad.device import TinyELF

    @dataclass(frozen=True)
    class Helper:
        def to_elf(self) -> Any:
            return TinyELF(_TRAP[machine()], ast.arg.name, renderer.target, ())

    return Helper()


def _write_wrapper(zig: Path, cache: Path | None) -> Path:
    if cache is not None:
        return _wrapper(zig, cache)
    try:
        return _wrapper(zig, cache_folder() / "zig")
    except OSError:
        return _wrapper(zig, Path(_temporary().name))


@lru_cache
def _temporary() -> Any:
    """A folder that is there until the process ends."""
    import tempfile

    return tempfile.TemporaryDirectory(prefix="autotune-zig-")


def _wrapper(zig: Path, cache: Path) -> Path:
    """Write the script, named by its content: versions may coexist. Raises PatchError, OSError."""
    if "'" in f"{zig}{cache}":
        raise PatchError(f"zig cannot be wrapped: there is a quote in its path {zig} or in the cache folder {cache}")
    text = _ZIG_WRAPPER.format(zig=zig, cache=cache / "cache")
    wrapper = cache / f"zigcc-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    script(wrapper, text)
    return wrapper
