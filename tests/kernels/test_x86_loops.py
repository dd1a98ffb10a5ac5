"""The patch of tinygrad's x86 assembler, and the bug that it is for."""

import os
import pickle
from pathlib import Path

import pytest
from support.bare_machine import ROOT, run_bare

from kernels.tinygrad import hostcc, x86_loops

pytestmark = pytest.mark.skipif(hostcc.machine() != "x86_64", reason="the X86 renderer is for x86_64")

# Loops after registers were allotted. 2 and 4 have one register and clear it by one instruction, as both come after a
# loop in rbx; 4 is within 2, as it may be where the counter of 2 waits on the stack.
NESTED = """
from tinygrad import dtypes
from tinygrad.codegen import line_rewrite
from tinygrad.codegen.late.regalloc import LinearScanRegallocContext
from tinygrad.helpers import Target
from tinygrad.renderer.isa import x86
from tinygrad.uop.ops import AxisType, Ops, UOp

instructions = []
def add(u):
    instructions.append(u)
    return u
def begin(number, register, *after):
    return add(UOp(Ops.RANGE, dtypes.int, (x86.imm(dtypes.int, 3), *after), (number, AxisType.LOOP), (register,)))
def end(loop):
    return add(UOp(Ops.END, dtypes.void, (loop, loop)))

rax, rbx = (next(r for r in x86.GPR if r.name == name) for name in ("rax", "rbx"))
first = end(begin(1, rbx))
outer = begin(2, rax, first)
inner = end(begin(3, rbx, outer))
end(begin(4, rax, inner))
end(outer)
renderer = x86.X86Renderer(Target("CPU", arch="x86_64"))
lowered = line_rewrite(instructions, renderer.post_regalloc_matcher, LinearScanRegallocContext([], renderer))
print([u.tag for u in lowered if u.arg is x86.X86Ops.LABEL])
print([u.tag for u in lowered if u.arg in (x86.X86Ops.JGE, x86.X86Ops.JMP)])
"""

RIGHT = (
    "['.LOOP_1', '.LOOP_OUT_1', '.LOOP_2', '.LOOP_3', '.LOOP_OUT_3', '.LOOP_4', '.LOOP_OUT_4', '.LOOP_OUT_2']",
    "['.LOOP_OUT_1', '.LOOP_1', '.LOOP_OUT_2', '.LOOP_OUT_3', '.LOOP_3', '.LOOP_OUT_4', '.LOOP_4', '.LOOP_2']",
)


def test_without_the_patch_two_loops_end_at_one_label(tmp_path: Path) -> None:
    """The reason for the patch. When this fails, tinygrad tells loops apart, and the patch can go."""
    labels, jumps = run_bare(NESTED, tmp_path).stdout.splitlines()
    assert (labels.count("'.LOOP_OUT_4'"), labels.count("'.LOOP_OUT_2'")) == (2, 0)
    assert "'.LOOP_OUT_2'" in jumps


@pytest.mark.parametrize(
    "patched",
    [
        "from kernels.tinygrad import x86_loops\nx86_loops.patch_tinygrad()\nx86_loops.patch_tinygrad()\n",
        # a process that is sent a renderer and has done nothing else
        "import pickle\npickle.loads({renderer!r})\n",
    ],
    ids=["here", "sent"],
)
def test_every_loop_ends_at_its_own_label(tmp_path: Path, patched: str) -> None:
    from tinygrad.helpers import Target
    from tinygrad.renderer.isa.x86 import X86Renderer

    x86_loops.patch_tinygrad()
    sent = pickle.dumps(X86Renderer(Target("CPU", arch="x86_64")))
    done = run_bare(patched.format(renderer=sent) + NESTED, tmp_path)
    assert tuple(done.stdout.splitlines()) == RIGHT


@pytest.mark.slow
def test_a_kernel_with_many_loops_is_right(tmp_path: Path) -> None:
    done = run_bare(MANY_LOOPS, tmp_path, DEV="CPU:X86", PYTHONPATH=os.pathsep.join((str(ROOT), str(ROOT / "tests"))))
    assert done.stdout.split() == ["CPU:X86", "ok"]


MANY_LOOPS = """
from support.attention_workloads import mla_many
from support.kernel_runs import device, run
from kernels.serve import defaults
from kernels.ops.registry import backend

here = backend(device().renderer)
print(here)
w = mla_many(8, heads=4, rank=32, rope=8, ctx=70)
print(run(w, defaults.defaults(w, here)[0]).outcome)
"""
