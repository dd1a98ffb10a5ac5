"""Kernels that are compiled before a graph launches them: all of a pass at once, in tinygrad's worker processes.

tinygrad compiles what a graph launches when it runs or captures it, and then walks through the code of every launch to
put it there: a second for a few hundred of them. A program that is in the graph from the beginning has none of that.
It is kept on disk, too (`kernels.tinygrad.programs`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from tinygrad import UOp, dtypes
from tinygrad.codegen import to_program_cache, to_program_key
from tinygrad.engine.realize import lower_and_compile
from tinygrad.uop.ops import Ops

from kernels import devices
from kernels.serve.sink import renderer
from kernels.tinygrad import programs


def compile_all(kernels: Iterable[UOp], device: str) -> None:
    """Compiles those of `kernels`, SINKs, that are not yet and that no earlier process did: several at a time."""
    target, here = devices.describe_target(device), renderer(device).target
    wanted = {_key(k, device): k for k in kernels if _settled(k)}
    todo = {key: kernel for key, kernel in wanted.items() if key not in to_program_cache}
    found = {key: program for key in todo if (program := programs.load(key, target, here)) is not None}
    to_program_cache.update(found)
    if left := {key: kernel for key, kernel in todo.items() if key not in found}:
        there = UOp.new_buffer(device, 1, dtypes.uint8)  # says which device; nothing is launched
        lower_and_compile(UOp(Ops.LINEAR, src=tuple(kernel.call(there) for kernel in left.values())))
        for key in left:
            programs.keep(key, target, _launchable(to_program_cache[key]))


def compiled(kernel: UOp, device: str) -> UOp:
    """What to call for `kernel`, a SINK: its program if there is one by now, else the SINK, which tinygrad compiles."""
    found = to_program_cache.get(_key(kernel, device)) if _settled(kernel) else None
    return kernel if found is None else _launchable(found)


def _settled(kernel: UOp) -> bool:
    """Whether nothing can change what is compiled: without opts, tinygrad's BEAM search may."""
    return kernel.arg.opts_to_apply is not None


def _key(kernel: UOp, device: str) -> tuple[object, ...]:
    key: tuple[object, ...] = to_program_key(kernel, renderer(device))
    return key


@functools.lru_cache(maxsize=1024)
def _launchable(program: UOp) -> UOp:
    """`program` without its code as UOps, but for the parameters: a launch needs no more, and walks through no more."""
    sink, linear, *binary = program.src
    parameters = tuple(dict.fromkeys((*(u for u in linear.src if u.op is Ops.PARAM), *program.arg.vars)))
    return program.replace(src=(sink.replace(src=parameters), linear.replace(src=parameters), *binary))
