"""The patch of tinygrad's C renderer, and the fault that it is for."""

from support.bare_machine import fake_compiler, run_bare

KERNEL = """
from tinygrad import UOp, dtypes
from tinygrad.codegen import to_program
from tinygrad.helpers import Target
from tinygrad.renderer.cstyle import ClangRenderer
from tinygrad.uop.ops import AxisType, KernelInfo, Ops

i = UOp.range(16, 0, AxisType.UPCAST)
out, x = (UOp.placeholder((16,), dtypes.float32, slot=slot)[i] for slot in (0, 1))
value = UOp(Ops.CUSTOM, src=(x.load(),), arg="v_silu({0}, {0})", dtype=dtypes.float32)
sink = out.store(value).end(i).sink(arg=KernelInfo(name="kernel", opts_to_apply=()))
renderer = ClangRenderer(Target("CPU", arch="x86_64,x86-64-v3"))
print(renderer.render(list(to_program(sink, renderer).src[1].src)))
"""
PATCH = "from kernels.tinygrad import vector_clang\nvector_clang.patch_tinygrad()\nvector_clang.patch_tinygrad()\n"


def rendered(tmp_path, patch=PATCH):
    compiler = fake_compiler(tmp_path / "bin" / "clang")
    return run_bare(patch + KERNEL, tmp_path, CC=str(compiler), CACHELEVEL="0").stdout


def test_without_the_patch_a_lane_is_taken_for_a_pointer(tmp_path):
    """The reason for the patch. When this fails, tinygrad renders lanes of Ops.CUSTOM as such, and the patch can go."""
    assert "(alu0+3)" in rendered(tmp_path, patch="")
    assert "alu0[3]" in (patched := rendered(tmp_path))
    assert patched.count("#define V_FUNCTION") == 1
