"""Patches tinygrad 0.14's C renderer for vectors: what kernels that call functions of the prelude need.

Under UPCAST an Ops.CUSTOM gets vectors and gives one, but a lane of it is rendered as of a pointer, `alu0+3`; here it
is `alu0[3]`. And there is no place for definitions: here the prelude goes before kernels that call one of its
functions.
"""

from __future__ import annotations

import re
from typing import Any

from tinygrad.renderer.cstyle import ClangRenderer
from tinygrad.uop.ops import Ops, PatternMatcher, UOp, UPat

from kernels.tinygrad.prelude import PRELUDE

_CALLS = re.compile(r"\bv_\w+\(")
_plain = ClangRenderer.render_kernel


def patch_tinygrad() -> None:
    """Patches every C renderer of a host, those that exist too, in this process. Idempotent."""
    if ClangRenderer.render_kernel is _render_kernel:
        return
    lane = (UPat(Ops.INDEX, src=(UPat(Ops.CUSTOM, name="vector"), UPat.var("at"))), _lane)
    ClangRenderer.string_rewrite = PatternMatcher([lane]) + ClangRenderer.string_rewrite
    ClangRenderer.render_kernel = _render_kernel


def _lane(ctx: Any, vector: UOp, at: UOp) -> str:
    return ctx[vector] if vector.max_numel() == 1 else f"{ctx[vector]}[{ctx[at]}]"


def _render_kernel(renderer: Any, *args: Any, **named: Any) -> str:
    text: str = _plain(renderer, *args, **named)
    return f"{PRELUDE}\n{text}" if _CALLS.search(text) else text
