"""Examines what this machine has for tuning, what is missing, and the remedy. Returns data, which the CLI prints.

Devices are probed in child processes, so that this process opens none. A store is only read, and a missing one is not
created. Whether the store and the caches can be written is tried with files beside them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotune.caches import Cache, caches, left_over, why_unwritable
from autotune.tinygrad_api.nvrtc import nvrtc_library
from db import paths
from db.errors import StoreError, without_secrets
from db.store import Store
from kernels import backends, clash, devices
from kernels.cache import EXECUTOR
from kernels.host import executor, threads
from kernels.tinygrad import hostcc

PACKAGES = ("tinygrad-autotune", "tinygrad", "numpy", "sqlalchemy", "alembic", "gguf", "click")
OPTIONAL_PACKAGES = ("fsspec", "aiohttp", "huggingface-hub", "ziglang", "nvidia-cuda-nvrtc-cu12")


@dataclass(frozen=True)
class Device:
    """The result of probing one device. detail: its name if it is ok, else the reason why it cannot be used, and the
    remedy."""

    name: str
    ok: bool
    chosen: bool
    detail: str


@dataclass(frozen=True)
class Tool:
    """A compiler. path and version are "" if it is missing."""

    name: str
    path: str
    version: str


@dataclass(frozen=True)
class Host:
    """How a CPU device computes here. threads: that share a launch; `why` so many. executor: whether launches are made
    by C (`kernels.host`), and `detail` where it is kept, or why there is none."""

    threads: int
    why: str
    executor: bool
    detail: str


@dataclass(frozen=True)
class StoreState:
    """The state of a store. nbytes: None for a database without a file. error: why the store could not be read.
    unwritable: why it cannot be written or made. stale: for how many kernels lookups find something else than was
    measured."""

    place: str
    exists: bool
    nbytes: int | None = None
    schema: str = ""
    rows: tuple[tuple[str, int], ...] = ()
    served: int = 0
    error: str = ""
    unwritable: str = ""
    stale: int = 0


@dataclass(frozen=True)
class Problem:
    """Something that is missing. A fatal problem stops the tuner, other problems cost speed or a feature."""

    what: str
    remedy: str
    fatal: bool = False


@dataclass(frozen=True)
class Report:
    """The results of `autotune doctor`. ok: no problem is fatal, which decides the exit status."""

    ok: bool
    device: str | None
    reason: str
    faster: str | None
    devices: tuple[Device, ...]
    compilers: tuple[Tool, ...]
    host: Host
    versions: tuple[tuple[str, str], ...]
    store: StoreState
    caches: tuple[Cache, ...]
    problems: tuple[Problem, ...]


def examine(
    store: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    probe: devices.Probe = devices.probe_device,
) -> Report:
    """Examines this machine, and the store at `store` (default: db.paths.default_store()). Takes some seconds."""
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    findings = {name: probe(name, environ) for name in _apart_from_the_host()}
    try:
        choice = devices.choose_device(environ, lambda name, _: findings[name])
    except devices.DeviceError as error:
        choice = None
        problems.append(Problem(str(error), "the devices listed as ok are those that DEV may name", fatal=True))
    compilers = _compilers(environ)
    findings |= _cpu_findings(environ, probe)
    state = _store(store)
    if state.error or state.unwritable:
        what = state.error or f"the store {state.place} can be read, not written: {state.unwritable}"
        problems.append(Problem(what, "choose another place with --db or AUTOTUNE_DB", fatal=True))
    if state.stale:
        what = f"for {state.stale} kernels the store keeps another schedule than its measurements say"
        problems.append(Problem(what, "the next sweep mends it"))
    found_caches = caches()
    for cache in found_caches:
        if cache.problem:
            problems.append(Problem(f"the cache {cache.place} cannot be used: {cache.problem}", cache.remedy))
    for folder in left_over():
        problems.append(Problem(f"{folder} was of an earlier version, and nothing reads it any more", "remove it"))
    versions, missing = _versions()
    problems += missing + _advice(choice, compilers)
    chosen = None if choice is None else _spelled(choice.device)
    if chosen in findings and not findings[chosen].ok:  # only DEV can choose a device that does not work
        problems.append(Problem(f"{chosen}: {findings[chosen].detail}", "unset DEV to use what works", fatal=True))
    return Report(
        ok=not any(p.fatal for p in problems),
        device=choice.device if choice else None,
        reason=choice.reason if choice else problems[0].what,
        faster=choice.faster if choice else None,
        devices=tuple(Device(n, f.ok, n == chosen, f.detail) for n, f in findings.items()),
        compilers=compilers,
        host=_host(environ),
        versions=versions,
        store=state,
        caches=found_caches,
        problems=tuple(problems),
    )


def _apart_from_the_host() -> list[str]:
    """The hardware devices other than the host's CPU."""
    return [row.name for row in backends.devices() if row.hardware and not row.host]


def _spelled(device: str) -> str:
    """The name in the device list for DEV=`device`. CPU:X86 has its own entry."""
    row = backends.find(device)
    return row.name if row.name == backends.ASSEMBLED else row.device


def _cpu_findings(environ: Mapping[str, str], probe: devices.Probe) -> dict[str, devices.Finding]:
    compiler = hostcc.find(environ)
    if compiler is None:
        cpu = devices.Finding(False, f"no C compiler that tinygrad can use: {hostcc.INSTALL}")
    else:
        cpu = probe(backends.HOST, {**environ, "CC": compiler.path})
    if hostcc.machine() != backends.find(backends.ASSEMBLED).machine:
        x86 = devices.Finding(False, f"this is {hostcc.machine()}")
    else:
        x86 = devices.Finding(
            True, "needs no compiler" + ("; tinygrad is patched for that" if compiler is None else "")
        )
    return {backends.HOST: cpu, backends.ASSEMBLED: x86}


def _compilers(environ: Mapping[str, str]) -> tuple[Tool, ...]:
    tools = []
    for name, found in (("clang", hostcc.find_clang(environ)), ("zig", hostcc.find_zig())):
        path = found.path if found else ""
        tools.append(Tool(name, path, hostcc.compiler_version(path) if path else ""))
    return (*tools, _nvrtc())


def _host(environ: Mapping[str, str]) -> Host:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        executes = executor.available()
    if executes:
        return Host(threads.count(environ), threads.reason(environ), True, f"kept in {EXECUTOR.path}")
    missing = "no C compiler has built it" if hostcc.find() is None else f"there is none for {platform.platform()}"
    why_not = str(told[0].message) if told else missing
    return Host(1, "without the executor, Python makes the launches, one slice at a time", False, why_not)


def _nvrtc() -> Tool:
    found = nvrtc_library()
    return Tool(backends.NVRTC, *(found or ("", "")))


def _nvrtc_remedy() -> str:
    """How to make nvrtc available. NVIDIA's wheel installs the library in a folder that is not searched."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for library in sorted(Path(folder).glob("cuda_nvrtc/lib/libnvrtc.so.*")):
            return f"export NVRTC_PATH={library}"
    return "install the CUDA toolkit, or pip install nvidia-cuda-nvrtc-cu12 and run this again"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _versions() -> tuple[tuple[tuple[str, str], ...], list[Problem]]:
    seen = {name: _version(name) for name in (*PACKAGES, *OPTIONAL_PACKAGES)}
    problems = [
        Problem(f"{name} is not installed", "pip install tinygrad-autotune", fatal=True)
        for name in PACKAGES[1:]  # the first one, this package, may run from a checkout
        if not seen[name]
    ]
    if not all(seen[name] for name in ("fsspec", "aiohttp", "huggingface-hub")):
        problems.append(
            Problem("models at http(s) and hf:// cannot be read", "pip install 'tinygrad-autotune[remote]'")
        )
    if seen["tinygrad"] and not seen["tinygrad"].startswith(f"{hostcc.TINYGRAD}."):
        remedy = f"pip install 'tinygrad=={hostcc.TINYGRAD}.*'"
        problems.append(Problem(f"tinygrad {seen['tinygrad']} is not the {hostcc.TINYGRAD} this is for", remedy, True))
    if (other := clash.other_kernels()) is not None:
        problems.append(Problem(f"the unrelated distribution kernels {other} owns our import name too", clash.REMEDY))
    python = (("python", platform.python_version()), ("system", platform.platform()))
    return python + tuple((name, version or "not installed") for name, version in seen.items()), problems


def _advice(choice: devices.Choice | None, compilers: tuple[Tool, ...]) -> list[Problem]:
    """Problems that make the chosen device slower. None of them is fatal."""
    problems = []
    if choice is not None and choice.patch_tinygrad and choice.faster is not None:
        problems.append(Problem("no C compiler for the CPU device", choice.faster))
    wanted = backends.find(choice.device).compiler if choice is not None else ""
    if wanted == backends.NVRTC and not all(t.path for t in compilers if t.name == wanted):
        problems.append(Problem("tinygrad finds no CUDA compiler (nvrtc) and writes PTX by itself", _nvrtc_remedy()))
    return problems


def _store(where: str | Path | None) -> StoreState:
    place = str(where or paths.default_store())
    shown = without_secrets(place)  # because users publish reports
    try:
        file = paths.sqlite_path(place)
        unwritable = "" if file is None else why_unwritable(file)
        if paths.is_missing(place):
            return StoreState(shown, exists=False, unwritable=unwritable)
        store = Store.read(place)
        stats, stale = store.stats(), store.stale()
    except StoreError as error:
        return StoreState(shown, exists=True, error=str(error))
    rows, damaged = tuple(stats.rows.items()), "; ".join(store.problems[:1])
    return StoreState(stats.where, True, stats.nbytes, stats.schema, rows, stats.served, damaged, unwritable, stale)
