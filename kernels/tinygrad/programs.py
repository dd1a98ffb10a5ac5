"""Compiled programs on disk: a model that ran once starts without its kernels being lowered and compiled again.

One file a program, found by all that it was compiled from: the kernel as UOps, the C functions that it may call, the
device, tinygrad's version and settings. `kernels.cache` checks that a file is whole; here its program is compared with
the kernel that is asked for. Every file may be deleted at any time. tinygrad's CCACHE=0 turns this off.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from tinygrad import UOp, dtypes
from tinygrad.dtype import AddrSpace
from tinygrad.helpers import getenv
from tinygrad.renderer import Estimates, Renderer
from tinygrad.uop.ops import KernelInfo, Ops, ProgramInfo

from db.records import Target
from kernels.cache import PROGRAMS
from kernels.tinygrad import prelude
from kernels.tinygrad.compiler_cache import made_for, tinygrad_version

_LAYOUT = 2  # of the files
_DIMENSIONS, _MOST_THREADS = 3, 1024  # of a workgroup, on any device


def load(key: tuple[object, ...], kernel: UOp, target: Target, ren: Renderer) -> UOp | None:
    """The PROGRAM that was kept for tinygrad's key of `kernel`, a SINK, on `target`; None if there is none."""
    kept = PROGRAMS.read(_key(key, target)) if _enabled() else None
    if kept is None:
        return None
    try:
        program = _rebuilt(described := json.loads(kept), ren.target)
        whole = described == json.loads(json.dumps(_described(program)))  # tinygrad takes values of any type
        return program if whole and _fits(program, kernel) else None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, RuntimeError):
        return None


def keep(key: tuple[object, ...], target: Target, program: UOp) -> None:
    """Keeps a compiled PROGRAM, whose code as UOps is its parameters alone, if a file can say all of it and can be
    written."""
    described = _described(program)
    if not _enabled() or described is None:
        return
    rebuilt = _rebuilt(described, program.arg.target)
    if rebuilt.arg == program.arg:  # two parameters of the x86 renderer may be one when they are read again
        PROGRAMS.write(_key(key, target), json.dumps(_described(rebuilt)).encode())


def _enabled() -> bool:
    return bool(getenv("CCACHE", 1))


def _key(key: tuple[object, ...], target: Target) -> str:
    """Without the compute units: on a host those are threads, of which the code knows nothing."""
    device = sorted((name, value) for name, value in asdict(target).items() if name != "compute_units")
    return f"{_LAYOUT} {tinygrad_version()} {_prelude()} {device} {made_for(repr(key))}"


@functools.cache
def _prelude() -> str:
    """Of the C functions that a kernel as UOps only names."""
    return hashlib.sha256(prelude.PRELUDE.encode()).hexdigest()


def _fits(program: UOp, kernel: UOp) -> bool:
    """Whether a PROGRAM can be that of `kernel`: its name, arguments and Variables, and sizes that a device takes."""
    info: ProgramInfo = program.arg
    found, asked = set(_arguments(program.src[1].src)), set(_arguments(kernel.toposort()))
    sizes, local = info.global_size, info.local_size or ()
    return (
        info.name == kernel.arg.name
        and len(program.src[-1].arg) > 0
        and found <= asked
        and {slot for slot, _ in found if isinstance(slot, int)} <= {*info.globals}
        and {*info.vars} == {p for p in program.src[1].src if p.addrspace is AddrSpace.ALU}
        and {*info.outs} <= {argument for argument, _ in found}
        and {*info.globals, *info.ins} <= {argument for argument, _ in asked}
        and 0 < len(sizes) <= _DIMENSIONS
        and len(local) <= _DIMENSIONS
        and all(size > 0 for size in (*sizes, *local))
        and math.prod(local) <= _MOST_THREADS
    )


def _arguments(uops: Iterable[UOp]) -> Iterator[tuple[object, object]]:
    """Of each buffer (slot, elements), of each Variable (name, limits), but for the number of a CPU's thread. The dtype
    of a buffer says nothing: tinygrad's x86 renderer makes all of them addresses."""
    for p in uops:
        if p.op is Ops.PARAM and p.addrspace is not AddrSpace.ALU:
            yield p.arg.slot, math.prod(p.shape)
        elif p.op is Ops.PARAM and p.arg.name != "core_id":
            yield p.arg.name, p.arg.vmin_vmax


def _described(program: UOp) -> dict[str, Any] | None:
    """A PROGRAM as JSON; None where sizes depend on Variables."""
    sink, linear, source, binary = program.src
    info: ProgramInfo = program.arg
    estimates = sink.arg.estimates
    parameters = linear.src
    sizes = [*info.global_size, *(info.local_size or ()), *(size for p in parameters for size in p.shape)]
    if not all(isinstance(size, int) for size in sizes):
        return None
    counts = [estimates.ops, estimates.lds, estimates.mem] if estimates else [None]
    return {
        "name": info.name,
        "global_size": info.global_size,
        "local_size": info.local_size,
        "vars": [parameters.index(v) for v in info.vars],
        "globals": info.globals,
        "outs": info.outs,
        "ins": info.ins,
        "parameters": [_parameter(p) for p in parameters],
        "estimates": counts if all(isinstance(c, int) for c in counts) else None,
        "source": source.arg,
        "binary": base64.b64encode(binary.arg).decode(),
    }


def _parameter(p: UOp) -> dict[str, Any]:
    return {
        "slot": p.arg.slot,
        "dtype": str(p.dtype).removeprefix("dtypes."),
        "shape": p.shape,
        "vmin_vmax": p.arg.vmin_vmax,
        "multiple_of": p.arg.multiple_of,
        "name": p.arg.name,
        "addrspace": p.arg.addrspace.name,
        "volatile": p.arg.volatile,
    }


def _rebuilt(described: dict[str, Any], tinygrad_target: Any) -> UOp:
    """The PROGRAM of `_described`."""
    parameters = tuple(_param(p) for p in described["parameters"])
    info = ProgramInfo(
        described["name"],
        tuple(described["global_size"]),
        None if described["local_size"] is None else tuple(described["local_size"]),
        tuple(parameters[i] for i in described["vars"]),
        *(tuple(described[name]) for name in ("globals", "outs", "ins")),
        tinygrad_target,
    )
    estimates = None if described["estimates"] is None else Estimates(*described["estimates"])
    sink = UOp(Ops.SINK, src=parameters, arg=KernelInfo(name=described["name"], estimates=estimates))
    code = (
        UOp(Ops.SOURCE, arg=described["source"]),
        UOp(Ops.BINARY, arg=base64.b64decode(described["binary"], validate=True)),
    )
    return UOp(Ops.PROGRAM, src=(sink, UOp(Ops.LINEAR, src=parameters), *code), arg=info)


def _param(p: dict[str, Any]) -> UOp:
    limits = None if p["vmin_vmax"] is None else tuple(p["vmin_vmax"])
    named = {name: p[name] for name in ("multiple_of", "name", "volatile")}
    space = AddrSpace[p["addrspace"]]
    found: UOp = UOp.param(
        p["slot"], getattr(dtypes, p["dtype"]), tuple(p["shape"]), vmin_vmax=limits, addrspace=space, **named
    )
    return found
