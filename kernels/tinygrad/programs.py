"""Compiled programs on disk: a model that ran once starts without its kernels being lowered and compiled again.

One JSON file a program in the user's cache folder, named by all that it was compiled from: the kernel as UOps, the
device, tinygrad's version and settings. Every file may be deleted at any time. tinygrad's CCACHE=0 turns this off.
"""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tinygrad import UOp, dtypes
from tinygrad.dtype import AddrSpace
from tinygrad.helpers import getenv
from tinygrad.renderer import Estimates
from tinygrad.uop.ops import KernelInfo, Ops, ProgramInfo

from db.records import Target
from kernels.cache import cache_folder, write_whole

_LAYOUT = 1  # of the files


def load(key: tuple[object, ...], target: Target, tinygrad_target: Any) -> UOp | None:
    """The PROGRAM that was kept for tinygrad's key of a kernel on `target`; None if there is none that can be read."""
    if not _enabled():
        return None
    try:
        return _rebuilt(json.loads(_path(key, target).read_text()), tinygrad_target)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep(key: tuple[object, ...], target: Target, program: UOp) -> None:
    """Keeps a compiled PROGRAM, whose code as UOps is its parameters alone, if a file can say all of it and can be
    written."""
    described = _described(program)
    if not _enabled() or described is None or _rebuilt(described, program.arg.target).arg != program.arg:
        return
    with suppress(OSError):
        write_whole(_path(key, target), json.dumps(described))


def _enabled() -> bool:
    return bool(getenv("CCACHE", 1))


def _path(key: tuple[object, ...], target: Target) -> Path:
    said = f"{_LAYOUT} {version('tinygrad')} {sorted(asdict(target).items())} {key!r}"
    return cache_folder() / "programs" / f"{hashlib.sha256(said.encode()).hexdigest()}.json"


def _described(program: UOp) -> dict[str, Any] | None:
    """A PROGRAM as JSON; None where sizes depend on Variables."""
    sink, linear, source, binary = program.src
    info: ProgramInfo = program.arg
    estimates = sink.arg.estimates or Estimates()
    parameters = linear.src
    sizes = [*info.global_size, *(info.local_size or ()), *(size for p in parameters for size in p.shape)]
    if not all(isinstance(size, int) for size in sizes):
        return None
    counts = [estimates.ops, estimates.lds, estimates.mem]
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
    code = UOp(Ops.SOURCE, arg=described["source"]), UOp(Ops.BINARY, arg=base64.b64decode(described["binary"]))
    return UOp(Ops.PROGRAM, src=(sink, UOp(Ops.LINEAR, src=parameters), *code), arg=info)


def _param(p: dict[str, Any]) -> UOp:
    limits = None if p["vmin_vmax"] is None else tuple(p["vmin_vmax"])
    named = {name: p[name] for name in ("multiple_of", "name", "volatile")}
    space = AddrSpace[p["addrspace"]]
    found: UOp = UOp.param(
        p["slot"], getattr(dtypes, p["dtype"]), tuple(p["shape"]), vmin_vmax=limits, addrspace=space, **named
    )
    return found
