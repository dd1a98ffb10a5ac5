"""Candidates that misbehave: real machine code for the runner's device, and a renderer for the compile pool.

Nothing in the product knows of these: they come in as any program or renderer does.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import platform
import signal
import sys
import time
from dataclasses import replace
from typing import Any

from tinygrad.device import CompileError, Device
from tinygrad.helpers import Target
from tinygrad.renderer import Renderer
from tinygrad.renderer.cstyle import OpenCLRenderer
from tinygrad.uop.ops import Ops, UOp

from autotune.tinygrad_api.lower import Program

# The kernel's first argument is its output of N floats. C where tinygrad has a C compiler ...
C_FAULTS = {
    "hang": "for (volatile int i = 0;; i++);",
    "segfault": "*(volatile int *)16 = 1;",
    "fill_memory": "for (;;) { volatile char *p = malloc(1 << 26); for (int i = 0; i < 1 << 26; i += 4096) p[i] = 1; }",
    "write_past_end": "for (int i = 0; i <= N; i++) out[i] = 0;",
    "write_nothing": "",
    "write_zeros": "for (int i = 0; i < N; i++) out[i] = 0;",
    "write_nans": 'for (int i = 0; i < N; i++) out[i] = __builtin_nanf("");',
    "dawdle": "for (volatile int i = 0; i < 100000000; i++);",
    "killed": "raise(9);",
}
# ... and the same by hand for x86-64 where it has none (System V: the output is in rdi).
X86_FAULTS = {
    "hang": "ebfe",  # jmp $
    "segfault": "c704251000000001000000",  # mov dword [16], 1
    # mmap(0, 64 MiB, RW, PRIVATE|ANONYMOUS|POPULATE, -1, 0) for ever
    "fill_memory": "b809000000 31ff be00000004 ba03000000 41ba22800000 49c7c0ffffffff 4531c9 0f05 ebdb",
    "write_past_end": "b9{n1} 31c0 f3ab c3",  # mov ecx, N + 1; xor eax, eax; rep stosd; ret
    "write_nothing": "c3",
    "write_zeros": "b9{n} 31c0 f3ab c3",
    "write_nans": "b9{n} b80000c07f f3ab c3",
    "dawdle": "b900e1f505 ffc9 75fc c3",  # mov ecx, 10^8; dec ecx; jnz; ret
    "killed": "b827000000 0f05 89c7 be09000000 b83e000000 0f05",  # kill(getpid(), 9)
}


def fault_program(good: Program, fault: str, elements: int, renderer: Renderer) -> Program:
    """A program that takes `good`'s arguments and does what `fault` names instead."""
    if type(renderer).__name__ == "ClangRenderer":
        head = f"void *malloc(unsigned long);\nint raise(int);\nenum {{ N = {elements} }};\n"
        code = renderer.compiler.compile(f"{head}void {good.name}(float *out) {{ {C_FAULTS[fault]} }}")
    else:
        assert platform.machine() in ("x86_64", "AMD64"), "these faults need clang or an x86-64 processor"
        n, n1 = (v.to_bytes(4, "little").hex() for v in (elements, elements + 1))
        code = bytes.fromhex(X86_FAULTS[fault].format(n=n, n1=n1))
    info = replace(good.uop.arg, global_size=(1, 1, 1))
    uop = good.uop.replace(src=(*good.uop.src[:3], UOp(Ops.BINARY, arg=code)), arg=info)
    return replace(good, uop=uop, key=hashlib.sha256(code).hexdigest())


def _fill_memory() -> None:
    kept = []
    while True:
        kept.append(bytearray(b"x" * (16 << 20)))


def _refuse() -> None:
    raise CompileError("no such instruction\n  in line 7")


def _bug() -> None:
    raise KeyError("a bug in a renderer")


def _last_words() -> None:
    """A bug, and something that has more to say once it is told."""
    atexit.register(sys.stderr.write, "on the way out: one leaked object\n")
    raise KeyError("what it died of")


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_once() -> None:
    """As _killed, but for where the file that $KILLED_ONCE names is there."""
    if not os.path.exists(once := os.environ["KILLED_ONCE"]):
        open(once, "w").close()
        _killed()


# what rendering a kernel of n rows does
N_OF = {
    "hang": 201,
    "segfault": 202,
    "exit": 203,
    "fill_memory": 204,
    "refuse": 205,
    "bug": 206,
    "open_device": 207,
    "last_words": 208,
    "killed": 209,
    "killed_once": 210,
}
_ACTIONS = {
    "hang": lambda: time.sleep(3600),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(3),
    "fill_memory": _fill_memory,
    "refuse": _refuse,
    "bug": _bug,
    "last_words": _last_words,
    "open_device": lambda: Device["CPU"],
    "killed": _killed,
    "killed_once": _killed_once,
}


class FaultyRenderer(OpenCLRenderer):
    """OpenCL, which compiles only when loaded, so that no compiler is needed here. Kernels of N_OF rows misbehave."""

    def render_kernel(self, function_name: str, *args: Any, **kwargs: Any) -> str:
        for fault, n in N_OF.items():
            if f"_{n}x" in function_name:
                _ACTIONS[fault]()
        return str(super().render_kernel(function_name, *args, **kwargs))


def faulty_renderer() -> FaultyRenderer:
    return FaultyRenderer(Target("CL"))
