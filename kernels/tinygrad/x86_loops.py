"""Patches how tinygrad 0.14's x86 assembler ends loops.

It knows an open loop by the instruction that clears the loop's counter. An outer loop whose counter waits on the stack
and a loop within it may get the same register, and then the same instruction: both ends jump to the inner loop's label,
and the outer loop's is missing (KeyError: '.LOOP_OUT_3'). Loops end in the opposite order of their begin, which is all
that it takes to tell them apart.
"""

from __future__ import annotations

from typing import Any

from tinygrad.helpers import Target
from tinygrad.renderer import Renderer
from tinygrad.renderer.isa import x86
from tinygrad.uop.ops import Ops, PatternMatcher, UOp, UPat

Lowered = tuple[UOp, list[UOp]]
"""What stands for an instruction from now on, and the instructions that replace it."""


def patch_tinygrad() -> None:
    """Patches the assembler in this process, and in every process that is sent one of its renderers. Idempotent."""
    if x86.X86Renderer.__reduce__ is _reduce:
        return
    ours = PatternMatcher([(UPat(Ops.RANGE, name="x"), _begin), (UPat(Ops.END, name="x"), _end)])
    x86.X86Renderer.post_regalloc_matcher = ours + x86.X86Renderer.post_regalloc_matcher
    x86.X86Renderer.__reduce__ = _reduce


def _begin(ctx: Any, x: UOp) -> Lowered:
    counter, instructions = x86.lower_range(ctx, x)
    if counter in ctx.loop_label:  # one that counts
        _open_loops(ctx).append(ctx.loop_label[counter])
    return counter, instructions


def _end(ctx: Any, x: UOp) -> Lowered:
    ctx.loop_label[x.src[1]] = _open_loops(ctx).pop()
    lowered: Lowered = x86.lower_end(ctx, x)
    return lowered


def _open_loops(ctx: Any) -> list[str]:
    """The labels of the loops that have begun and not ended, of the kernel that `ctx` is about."""
    labels: list[str] = vars(ctx).setdefault("open_loops", [])
    return labels


def _reduce(renderer: Renderer) -> tuple[Any, tuple[Target]]:
    return _renderer, (renderer.target,)


def _renderer(target: Target) -> Renderer:
    """A pickled renderer, in the process that reads it."""
    patch_tinygrad()
    return x86.X86Renderer(target)
