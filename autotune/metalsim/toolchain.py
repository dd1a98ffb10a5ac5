"""Compiles Metal source to a shared library for the host, with clang++ and the shim in include/. Libraries are cached
on disk."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autotune.metalsim.translate import TranslationError, translate
from autotune.metalsim.verdict import MetalFault, Verdict
from kernels.cache import SIMULATED

OLDEST = 15  # the first version whose _Float16 arithmetic on x86 rounds each operation
_HERE = Path(__file__).parent
_MACHINE = {"x86_64": ("-mf16c",), "aarch64": ()}
_COMMON = ("-x", "c++", "-std=c++17", "-fPIC", "-w", "-ffp-contract=off", "-fno-exceptions", "-fno-rtti")
_CHECKS = "-fsanitize=thread,alignment,array-bounds,shift-exponent,integer-divide-by-zero"
_KERNEL = (
    *("-O1", "-gline-tables-only", "-fno-strict-aliasing", "-fno-finite-loops", "-fwrapv", "-fno-math-errno"),
    *("-ftrivial-auto-var-init=pattern", _CHECKS, "-fno-sanitize-recover=all"),
    *("-mllvm", "-tsan-instrument-func-entry-exit=0", "-mllvm", "-tsan-instrument-atomics=0"),
)


class ToolchainError(Exception):
    """This machine has no compiler that the simulator can use."""


@dataclass(frozen=True)
class Toolchain:
    """A clang++ and its version."""

    path: str
    version: str

    @property
    def major(self) -> int:
        return int(re.search(r"version (\d+)", self.version)[1])  # type: ignore[index]


@functools.cache
def find_toolchain(compiler: str | None = None) -> Toolchain:
    """`compiler`, by default the newest clang++ on PATH. Raises ToolchainError if it is missing or older than
    OLDEST."""
    if platform.system() != "Linux" or platform.machine() not in _MACHINE:
        raise ToolchainError(f"Metal is simulated on x86-64 and arm64 Linux only, not on {platform.platform()}")
    names = [compiler] if compiler else ["clang++", *(f"clang++-{n}" for n in range(30, OLDEST - 1, -1))]
    seen = []
    for path in filter(None, map(shutil.which, names)):
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        if re.search(r"clang version (\d+)", version):
            found = Toolchain(path, version)
            if found.major >= OLDEST:
                return found
        seen.append(f"{path} is {version.splitlines()[0] if version else 'no compiler'}")
    what = "; ".join(seen) or f"there is no {compiler or 'clang++'}"
    raise ToolchainError(
        f"simulating Metal needs clang++ {OLDEST} or newer: {what}. Remedy: apt install clang-{OLDEST}"
    )


def compile_metal(source: str, compiler: str | None = None) -> bytes:
    """A shared library with an entry for each kernel of `source`. Raises MetalFault with a compile_error for source
    that does not compile, and ToolchainError if there is no compiler or the disk is full."""
    tools = find_toolchain(compiler)
    try:
        text = translate(source).text
    except TranslationError as e:
        raise MetalFault(Verdict("compile_error", str(e))) from None
    with _room():
        return _compiled(tools, text)


@contextmanager
def _room() -> Iterator[None]:
    """Turns OSError of the temporary folder into ToolchainError."""
    try:
        yield
    except OSError as e:
        raise ToolchainError(f"simulating Metal needs a temporary folder ({e}). Remedy: TMPDIR") from e


def _compiled(tools: Toolchain, text: str) -> bytes:
    key = _key(tools, "kernel", text)
    if (kept := SIMULATED.read(key)) is not None:
        return kept
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernel.metal").write_text(text)
        flags = (*_flags(tools), *_KERNEL, "-I", str(_HERE / "include"), "-include", "metal_stdlib")
        _run(tools, [*flags, "-c", "kernel.metal", "-o", "kernel.o"], folder)
        objects = _runtime(tools)
        for name, code in objects.items():
            Path(folder, name).write_bytes(code)
        link = ["-shared", "-Wl,--build-id=none,-Bsymbolic", "kernel.o", *objects, "-o", "kernel.so", "-lm"]
        _run(tools, link, folder)
        made = Path(folder, "kernel.so").read_bytes()
    SIMULATED.write(key, made)
    return made


@contextmanager
def library_file(library: bytes) -> Iterator[Path]:
    """A file with what `compile_metal` returned, for as long as the context lasts."""
    with _room(), tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(library)
        file.flush()
        yield Path(file.name)


@functools.cache
def _runtime(tools: Toolchain) -> dict[str, bytes]:
    """The runtime's object files by name, which every library contains."""
    objects = {}
    for source in sorted((_HERE / "runtime").glob("*.cc")):
        key = _key(tools, source.name, "")
        code = SIMULATED.read(key)
        if code is None:
            with tempfile.TemporaryDirectory() as folder:
                _run(tools, [*_flags(tools), "-O2", "-c", str(source), "-o", "runtime.o"], folder)
                code = Path(folder, "runtime.o").read_bytes()
            SIMULATED.write(key, code)
        objects[f"{source.stem}.runtime.o"] = code
    return objects


def _flags(tools: Toolchain) -> tuple[str, ...]:
    # from 16 on, an expression of halves is otherwise rounded once, at its end
    rounding = ("-Xclang", "-ffloat16-excess-precision=none") if tools.major >= 16 else ()
    # the same bytes wherever it is made
    nowhere = ("-fdebug-compilation-dir=.", f"-ffile-prefix-map={_HERE}=metalsim")
    return (*_COMMON, *_MACHINE[platform.machine()], *rounding, *nowhere)


def _run(tools: Toolchain, arguments: list[str], folder: str) -> None:
    done = subprocess.run([tools.path, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        if (full := os.strerror(errno.ENOSPC)) in done.stderr:
            raise OSError(errno.ENOSPC, full, folder)
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        where, _, message = errors[0].partition(" error: ")
        raise MetalFault(Verdict("compile_error", message or where, where.strip(": ") if message else ""))


@functools.cache
def _shim() -> bytes:
    """A digest of everything except the source that determines a library."""
    files = sorted(p for folder in ("include", "runtime") for p in (_HERE / folder).rglob("*") if p.is_file())
    return b"\0".join(p.name.encode() + b"\0" + p.read_bytes() for p in files)


def _key(tools: Toolchain, name: str, text: str) -> str:
    parts = (tools.version, repr((_flags(tools), _KERNEL)), name, text)
    return hashlib.sha256("\0".join(parts).encode() + _shim()).hexdigest()
