"""Compiling kernels ahead of their launches.

tinygrad compiles what a graph launches when it runs or captures it, and then walks through the code of every launch to
put it there: a second for a few hundred of them. A program that is in the graph from the beginning has none of that.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad import UOp, dtypes
from tinygrad.codegen import to_program_cache, to_program_key
from tinygrad.engine.realize import lower_and_compile
from tinygrad.renderer import Renderer
from tinygrad.uop.ops import Ops

Key = tuple[object, ...]
"""What tinygrad remembers a compiled kernel by: the kernel, the renderer and the settings that code depends on."""


def program_key(kernel: UOp, ren: Renderer) -> Key:
    """The key of a SINK that is compiled by a renderer's compiler."""
    key: Key = to_program_key(kernel, ren)
    return key


def in_memory(key: Key) -> UOp | None:
    """The program that tinygrad has compiled in this process."""
    return to_program_cache.get(key)


def compile_kernels(kernels: Sequence[UOp], device: str) -> None:
    """Compiles SINKs for a device, several at a time in tinygrad's worker processes; `in_memory` has them then."""
    there = UOp.new_buffer(device, 1, dtypes.uint8)  # says which device; nothing is launched
    lower_and_compile(UOp(Ops.LINEAR, src=tuple(kernel.call(there) for kernel in kernels)))


def launchable(program: UOp) -> UOp:
    """`program` without its code as UOps, but for the parameters: a launch needs no more, and walks through no more."""
    sink, linear, *binary = program.src
    parameters = tuple(dict.fromkeys((*(u for u in linear.src if u.op is Ops.PARAM), *program.arg.vars)))
    return program.replace(src=(sink.replace(src=parameters), linear.replace(src=parameters), *binary))
