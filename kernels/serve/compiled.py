"""Kernels that are compiled before a graph launches them: all of a pass at once, and kept on disk, too."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from tinygrad import UOp

from kernels import devices
from kernels.serve.sink import renderer
from kernels.tinygrad import compile as tinygrad_compile
from kernels.tinygrad import programs


def compile_all(kernels: Iterable[UOp], device: str) -> None:
    """Compiles those of `kernels`, SINKs, that are not yet and that no earlier process did: several at a time."""
    target, here = devices.describe_target(device), renderer(device).target
    wanted = {_key(k, device): k for k in kernels if _settled(k)}
    todo = {key: kernel for key, kernel in wanted.items() if tinygrad_compile.in_memory(key) is None}
    for key in todo:
        if (program := programs.load(key, target, here)) is not None:
            tinygrad_compile.put_in_memory(key, program)
    left = {key: kernel for key, kernel in todo.items() if tinygrad_compile.in_memory(key) is None}
    if left:
        tinygrad_compile.compile_kernels(tuple(left.values()), device)
        for key in left:
            programs.keep(key, target, _launchable(tinygrad_compile.in_memory(key)))


def compiled(kernel: UOp, device: str) -> UOp:
    """What to call for `kernel`, a SINK: its program if there is one by now, else the SINK, which tinygrad compiles."""
    found = tinygrad_compile.in_memory(_key(kernel, device)) if _settled(kernel) else None
    return kernel if found is None else _launchable(found)


def _settled(kernel: UOp) -> bool:
    """Whether nothing can change what is compiled: without opts, tinygrad's BEAM search may."""
    return kernel.arg.opts_to_apply is not None


def _key(kernel: UOp, device: str) -> tinygrad_compile.Key:
    return tinygrad_compile.program_key(kernel, renderer(device))


@functools.lru_cache(maxsize=1024)
def _launchable(program: UOp) -> UOp:
    return tinygrad_compile.launchable(program)
