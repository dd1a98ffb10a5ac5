"""The warp variant: an emulator of warps runs its CUDA source on the host, and nvrtc, if it is here, compiles it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from support.kernel_runs import MAX_UOPS, arrays, case_of, judged, schedule
from support.nvrtc import nvrtc
from support.tiers import few_of
from support.warp_emulator import COMPILER, CUDASource, launch
from tinygrad.helpers import Target
from tinygrad.renderer.cstyle import OpenCLRenderer

from autotune.tinygrad_api.lower import compile_program
from db.records import Outcome, Workload
from kernels import formats
from kernels.ops.linear.warp import MAX_TOKENS
from kernels.ops.registry import KernelError, operands, variants
from kernels.serve.sink import build

BLOCKED = [f for f in formats.FORMATS if formats.get_format(f).layout != "unquantized"]
# n and steps not of whole blocks of rows and turns, and of such; several tokens
SHAPES = (
    (77, 3, 1, {"rows": 2, "warps": 8, "staged": 0}),
    (13, 9, 2, {"rows": 4, "warps": 1, "staged": 0}),
    (8, 16, 3, {"rows": 1, "warps": 1, "staged": 0}),
    (5, 5, 8, {"rows": 1, "warps": 2, "staged": 0}),
    (77, 3, 1, {"rows": 2, "warps": 8, "staged": 1}),
    (8, 9, 2, {"rows": 4, "warps": 1, "staged": 1}),
    (6, 16, 1, {"rows": 1, "warps": 4, "staged": 1}),
)
SMALL = (13, 3, 2, {"rows": 1, "warps": 2, "staged": 0})
TYPICAL = ("Q4_K", "IQ3_S", "Q5_0")
CASES = [*((f, SMALL) for f in BLOCKED), *((f, s) for f in ("Q5_0", "Q4_K", "IQ3_S") for s in SHAPES)]


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize(
    ("format", "shape"),
    few_of(CASES, lambda case: case in [("Q4_K", SMALL), ("IQ3_S", SMALL), ("Q4_K", SHAPES[2])], pytest.mark.nightly),
    ids=[f"{f}-{s[:3]}-{s[3]['staged']}" for f, s in CASES],
)
def test_emulated(format, shape, tmp_path):
    n, blocks, m, params = shape
    w = Workload("linear", format, n, blocks * formats.get_format(format).block, m)
    allowed = [p["words"] for p in variants(w, "CUDA")["warp"].params(w)]
    words = max(allowed) if m == 1 else min(allowed)
    renderer = CUDASource()
    sink = build(w, schedule("warp", {**params, "words": words}), renderer)
    program = compile_program(sink, renderer, max_uops=MAX_UOPS)
    case = case_of(w)
    memory = arrays(w, case)
    launch(program, memory, tmp_path)
    verdict = judged(w, "warp", case, {"out": memory[0]})
    assert verdict.outcome is Outcome.OK, verdict.reason
    assert verdict.max_element_error < 4e-6


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize("format", few_of(["Q4_K", "Q6_K", "Q5_0"], lambda f: f == "Q4_K"))
def test_large_and_small_inputs_lose_nothing(format, tmp_path):
    """Quants are denormals on CUDA, x takes the powers of two that they lack: scaled by one, results are as well."""
    w = Workload("linear", format, 13, 768)
    renderer = CUDASource()
    sink = build(w, schedule("warp", {"rows": 1, "warps": 2, "words": 4, "staged": 1}), renderer)
    program = compile_program(sink, renderer, max_uops=MAX_UOPS)
    assert "tg_bitcast<float>" in program.source
    found = {}
    for power in (0, 24, -40):
        memory = arrays(w, case_of(w))
        [x] = [a for o, a in zip(operands(w), memory, strict=True) if o.name == "x"]
        x *= np.float32(2.0**power)
        (folder := tmp_path / str(power)).mkdir()
        launch(program, memory, folder)
        found[power] = memory[0][: 4 * w.n].view(np.float32)
    assert np.count_nonzero(found[0]) > w.n // 2
    assert all(np.array_equal(out, found[0] * np.float32(2.0**power)) for power, out in found.items())


@pytest.mark.parametrize("format", BLOCKED)
def test_only_where_there_are_shuffles_and_for_few_tokens(format):
    few, many = (Workload("linear", format, 8, 256, m) for m in (MAX_TOKENS, 32))
    assert "warp" in variants(few, "CUDA")
    assert "warp" in variants(few, "METAL")
    assert "warp" not in variants(few, "CPU")
    assert "warp" not in variants(few, "CL")
    assert "warp" not in variants(many, "CUDA")


def test_x_is_staged_where_it_fits_a_block_s_local_memory():
    def staged(w):
        return {p["staged"] for p in variants(w, "CUDA")["warp"].params(w)}

    assert staged(Workload("linear", "Q4_K", 8, 11008)) == {0, 1}
    assert staged(Workload("linear", "Q4_K", 8, 14336)) == staged(Workload("linear", "Q4_K", 8, 4096, 4)) == {0}


def test_not_for_a_device_without_shuffles():
    w, ren = Workload("linear", "Q8_0", 8, 256), OpenCLRenderer(Target("CL"))
    with pytest.raises(KernelError, match="has no variant 'warp'"):
        build(w, schedule("warp", {"rows": 1, "warps": 4, "words": 4, "staged": 0}), ren)


@pytest.mark.skipif(nvrtc() is None, reason="the nvidia-cuda-nvrtc-cu12 wheel is not installed")
def test_nvrtc_compiles_it_for_an_h100():
    program = """
        from tinygrad import Device
        from autotune.tinygrad_api.lower import compile_program
        from db.records import Schedule, Workload
        from kernels.ops.registry import body, variants
        from kernels.serve.sink import build, placeholders
        renderer = Device["NULL"].renderer
        for format in ("Q4_K", "IQ3_S", "F16"):
            w = Workload("linear", format, 77, 768, 2)
            for name, variant in variants(w, "CUDA").items():
                schedule = Schedule(name, tuple(sorted(variant.params(w)[-1].items())), ())
                sink = body(w, schedule, placeholders(w), "CUDA")
                print(format, name, len(compile_program(sink, renderer).source))
        """
    env = {**os.environ, "DEV": "NULL:CUDA:sm_90", "NVRTC_PATH": str(nvrtc())}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 8
