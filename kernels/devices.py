"""Which tinygrad device to use, and making it so: METAL, other GPUs, CPU with a compiler, CPU:X86 without one.

tinygrad's own choice opens every device in this process, leaves what it opened behind, and takes OpenCL on the CPU
for a GPU. Here a GPU is tried in a process of its own, which may hang or abort, and only after a look at its driver's
files. What a chosen device is like is `hardware`'s matter; compilers are `hostcc`'s.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kernels import backends
from kernels.lifeline import LIFELINE, lifeline
from kernels.tinygrad import hostcc, settings
from kernels.tinygrad.hardware import DeviceError as DeviceError
from kernels.tinygrad.hardware import clock as clock
from kernels.tinygrad.hardware import describe_target as describe_target
from kernels.tinygrad.hardware import facts as facts
from kernels.tinygrad.probe import PROBE

_PROBE_SECONDS = 60


@dataclass(frozen=True)
class Finding:
    """What trying a device gave. `detail`: its name, or why it cannot be used. `gpu` is False for a CPU in disguise."""

    ok: bool
    detail: str
    gpu: bool = True


@dataclass(frozen=True)
class Choice:
    """A device as DEV spells it, why it was chosen, how to get a faster one, and what was passed over and why.

    `cc` is the compiler that tinygrad is to be told about (None: its own default will do). `patch_tinygrad` says that
    the CPU device must open without one. Picklable, so that a child process can `activate` it too.
    """

    device: str
    reason: str
    faster: str | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    cc: str | None = None
    patch_tinygrad: bool = False


Probe = Callable[[str, Mapping[str, str]], Finding]


def gpus() -> tuple[str, ...]:
    """The devices that are used without being asked for when they work, in the order in which they are tried."""
    return tuple(row.name for row in backends.devices() if row.automatic)


def probe_device(device: str, environ: Mapping[str, str] = os.environ) -> Finding:
    """Try `device` (without renderer) in a child process; this one opens nothing. Up to a few seconds.

    OpenCL on the CPU has to compute something only if DEV asks for it: it is not chosen otherwise.
    """
    row = backends.find(device)
    if why := row.missing(environ):
        return Finding(False, why)
    # An interface of the kernel's driver, where there is one: tinygrad would go on to seize the bare PCI device.
    dev = f"{row.interface}+{device}" if row.interface else device
    env = {**environ, "DEV": dev, "CCACHE": "0", "CACHELEVEL": "0", "DEBUG": "0"}
    how = "thorough" if device in environ.get("DEV", "").upper() else "quick"
    command = [sys.executable, "-P", "-c", LIFELINE + PROBE.replace("# on_cpu", row.on_cpu), how]
    try:
        with lifeline() as stdin:
            done = subprocess.run(command, env=env, stdin=stdin, capture_output=True, text=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return Finding(False, f"did not compute 2 * [1, 2, 3] within {_PROBE_SECONDS} s")
    if done.returncode != 0:
        said = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", done.stderr).split("\n") if line.strip()]
        return Finding(False, f"does not work: {said[-1].strip(' |')[:200] if said else f'exit {done.returncode}'}")
    found = json.loads(done.stdout.strip().split("\n")[-1])
    if found["cpu"]:
        return Finding(True, f"{found['name']} is OpenCL on the CPU, used only if DEV={device} asks for it", gpu=False)
    return Finding(True, found["name"])


def choose_device(environ: Mapping[str, str] | None = None, probe: Probe = probe_device) -> Choice:
    """The device to use. DEV decides if it is set; else the first of METAL, other GPUs, CPU, CPU:X86 that works.

    Opens nothing here and changes nothing: `activate` does. Raises DeviceError for a DEV that is not a device or
    cannot be one here, and when no device can work.
    """
    environ = os.environ if environ is None else environ
    if dev := environ.get("DEV", "").strip():
        return _explicit(dev, environ)
    skipped: list[tuple[str, str]] = []
    for gpu in gpus():
        finding = probe(gpu, environ)
        if finding.ok and finding.gpu:
            return Choice(gpu, f"first GPU that works: {finding.detail}", skipped=tuple(skipped))
        skipped.append((gpu, finding.detail))
    return _cpu(environ, tuple(skipped))


def _cpu(environ: Mapping[str, str], skipped: tuple[tuple[str, str], ...]) -> Choice:
    if (compiler := hostcc.find(environ)) is not None:
        reason = f"no GPU works here; CPU kernels are compiled by {compiler.kind} ({compiler.path})"
        faster = f"a GPU: {', '.join(gpus())} are used without asking when they work"
        return Choice(backends.HOST, reason, faster, skipped, _cc(compiler, environ))
    skipped += ((backends.HOST, "no C compiler that tinygrad can use: neither CC, clang nor the ziglang wheel"),)
    if hostcc.machine() != backends.find(backends.ASSEMBLED).machine:
        raise DeviceError(f"no device works on this {hostcc.machine()} machine: {hostcc.INSTALL}")
    reason = "no GPU works here and there is no C compiler; tinygrad's own x86 assembler needs none"
    return Choice(backends.ASSEMBLED, reason, f"about 5 times faster: {hostcc.INSTALL}", skipped, patch_tinygrad=True)


def _cc(compiler: hostcc.HostCompiler, environ: Mapping[str, str]) -> str | None:
    """The value for CC, or None if tinygrad would come to the same compiler by itself."""
    default = None if environ.get("CC") else shutil.which("clang", path=environ.get("PATH", ""))
    return None if compiler.path == default else compiler.path


def _explicit(dev: str, environ: Mapping[str, str]) -> Choice:
    """Check DEV=`dev` ([interface+]DEVICE[:RENDERER[:ARCH]], more after `;`) as far as possible without opening it."""
    first = dev.split(";")[0].split("+")[-1]
    name, _, rest = first.partition(":")
    name, renderer = name.upper(), rest.split(":")[0].upper()
    if not backends.known(name):
        raise DeviceError(f"DEV={dev!r}: no such device; expected one of {_names()}")
    if renderer.isdigit():
        raise DeviceError(f"DEV={dev!r}: {renderer!r} is in the place of a renderer; DEV takes no device number")
    if why := backends.find(name).missing(environ):
        raise DeviceError(f"DEV={dev!r}: {why}; unset DEV to use what this machine has")
    choice = Choice(dev, f"DEV={dev} asks for it")
    if not (row := backends.find(dev)).host:
        return choice
    if renderer and renderer not in (there := backends.renderers(name)):
        raise DeviceError(f"DEV={dev!r}: {name} has no renderer {renderer!r}; expected {', '.join(there)}")
    if (compiler := hostcc.find(environ)) is not None:
        return Choice(dev, choice.reason, cc=_cc(compiler, environ))
    if row.compiler:
        assembled = backends.find(backends.ASSEMBLED)
        other = f", or DEV={assembled.name}" if hostcc.machine() == assembled.machine else ""
        raise DeviceError(f"DEV={dev!r} needs a C compiler: {hostcc.INSTALL}{other}")
    return Choice(
        dev, choice.reason, f"DEV={row.device} is about 5 times faster: {hostcc.INSTALL}", patch_tinygrad=True
    )


def named(device: str) -> str:
    """`device`, as tinygrad spells it ("CUDA:1"). Raises DeviceError for a name that is none of tinygrad's devices."""
    if not backends.known(device):
        raise DeviceError(f"device {device!r}: no such device; expected one of {_names()}")
    return device


def _names() -> str:
    return ", ".join(row.name for row in backends.devices())


def activate(choice: Choice) -> None:
    """Make tinygrad use `choice` in this process and in those it spawns. Works before and after tinygrad's import.

    Sets DEV (and CC) in os.environ. A child that opens the device calls this too: the patch is not inherited.
    Raises hostcc.PatchError when the patch is needed and this tinygrad cannot be patched.
    """
    os.environ["DEV"] = choice.device
    if choice.cc is not None:
        os.environ["CC"] = choice.cc
    settings.use_device(choice.device)
    if choice.patch_tinygrad:
        hostcc.patch_tinygrad()
