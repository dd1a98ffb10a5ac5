"""Where the tensor-core variant is offered, which schedules it has, and what they are compiled to."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from support.kernel_runs import schedule
from support.metal_runs import RENDERER, metal_kernel, needs_toolchain
from support.nvrtc import nvrtc
from support.renderers import CL, METAL
from support.tensor_cores import ARCHS, TC, TYPICAL, PythonRenderer, workload
from support.tiers import few_of

from autotune.search.space import Space
from autotune.tinygrad_api.lower import MAX_UOPS as SEARCHED_UOPS
from autotune.tinygrad_api.lower import compile_program
from autotune.trial import simulator
from db.records import Opt, Workload
from kernels.formats import FORMATS, get_format
from kernels.ops.linear import tensor_core
from kernels.ops.registry import backend, variants
from kernels.ops.tolerance import tolerance
from kernels.serve.defaults import defaults, heuristic
from kernels.serve.limits import Limits
from kernels.serve.sink import applies, build, default
from kernels.tinygrad.schedule import ScheduledKernel, ScheduleError


@pytest.mark.parametrize("device", ARCHS)
@pytest.mark.parametrize("format", few_of(FORMATS, lambda f: f in TYPICAL[:2], pytest.mark.nightly))
def test_loops_stay_whole_and_one_way_to_begin(device, format):
    """tinygrad splits a loop where it sees a remainder of it; then there is none of 16 to put on a tensor core."""
    ren = PythonRenderer(device)
    w = workload(format, 77, 80 if get_format(format).block == 1 else 3, 33)
    space = Space(w, ren, Limits.of(ren, w))
    starts = [s for s in space.starts if s.variant == "tc"]
    assert starts == [schedule("tc", {}, tensor_core.opts(format, device)[:1])]
    assert set(starts) <= set(space.seeds)
    kernel = ScheduledKernel(build(w, starts[0], ren).replace(arg=None), ren)
    products = [] if device == "METAL" else [("2", 2 if format == "BF16" else 3)]
    counts = ("3", -(-w.k // 16) * 16)
    assert [(a.name, a.size) for a in kernel.axes] == [("0", 48), ("1", 80), *products, counts]


@pytest.mark.parametrize(
    "opts",
    [None, (), (Opt("UPCAST", None, 2, "1"),), (Opt("TC", 0, (-1, 0, 2)),)],
    ids=["None", "none", "other", "use 2"],
)
def test_never_without_a_tensor_core(opts):
    """A product of bfloat16 is bfloat16 elsewhere."""
    w, found = workload("Q4_0", 64, 4, 32), schedule("tc", {}, opts)
    with pytest.raises(ScheduleError, match=r"tensor core|computes rightly only with TC"):
        build(w, found, METAL)
    assert not applies(w, found, "METAL", METAL)
    if opts is not None:
        assert Space(w, METAL, Limits()).candidate(found) is None


def test_all_that_the_search_is_offered_is_on_tensor_cores():
    w = workload("Q4_K", 4096, 16, 512)
    space = Space(w, METAL, Limits.of(METAL, w))
    here, seen = schedule("tc", {}, (TC,)), []
    for op, loop in (("UPCAST", "0"), ("UPCAST", "1"), ("UNROLL", "3"), ("LOCAL", "1")):
        children = [c.schedule for c in space.children(here)]
        assert all(c.opts[0].op == "TC" for c in children)
        assert {"UPCAST", "UNROLL", "LOCAL", "SWAP"} <= {c.opts[-1].op for c in children}
        here = next(c for c in children if (c.opts[-1].op, c.opts[-1].range, c.opts[-1].arg) == (op, loop, 4))
        seen.append(space.candidate(here).sizes.body)
    assert seen == [12, 48, 192, 192]
    assert compile_program(build(w, here, METAL), METAL).uops <= 12 * seen[-1]


@pytest.mark.parametrize(
    ("format", "m"),
    few_of([("Q4_K", 32), ("Q8_0", 32), ("Q6_K", 512), ("F16", 512)], lambda a: a[0] == "F16"),
)
def test_defaults_at_real_sizes(format, m):
    w = Workload("linear", format, 4096, 4096, m)
    found = default(w, METAL)
    assert found == next(iter(defaults(w, "METAL")))
    assert found.opts[0].op == "TC"
    assert Space(w, METAL, Limits.of(METAL, w)).candidate(found) is not None
    program = compile_program(build(w, found, METAL), METAL, max_uops=2 * SEARCHED_UOPS)
    assert "simdgroup_multiply_accumulate" in program.source
    assert "simdgroup_float8x8 mat_a" in program.source


def test_only_where_there_are_tensor_cores_and_for_many_tokens():
    few, many, row = (workload("Q4_K", n, 1, m) for n, m in ((64, 8), (64, 32), (1, 32)))
    assert "tc" not in variants(few)
    assert "tc" not in variants(row)
    assert "tc" in variants(many, "CUDA")
    assert "tc" in variants(many, backend(METAL))
    assert "tc" not in variants(many, "CPU")
    assert not [s for s in Space(many, CL, Limits()).starts if s.variant == "tc"]
    bare = replace_cores(METAL, [])
    assert not [s for s in Space(many, bare, Limits()).starts if s.variant == "tc"]
    assert default(many, bare).variant == "dequant"
    assert "tc" not in {s.variant for s in heuristic(many, "CUDA")}


@pytest.mark.parametrize(("arch", "served"), [("sm_75", False), ("sm_80", True), ("sm_89", True)])
def test_not_where_tensor_cores_multiply_no_bfloat16(arch, served):
    w, ren = workload("Q4_K", 64, 1, 32), PythonRenderer(arch)
    assert any(s.variant == "tc" for s in Space(w, ren, Limits()).starts) == served
    assert applies(w, schedule("tc", {}, tensor_core.opts("Q4_K", "CUDA")), "CUDA", ren) == served
    assert (default(w, ren).variant == "tc") == served


@needs_toolchain
@pytest.mark.parametrize(("format", "n", "k", "m"), [("Q4_K", 16, 256, 32), ("F16", 11, 35, 19)])
def test_simulated_metal(format, n, k, m):
    w = Workload("linear", format, n, k, m)
    found = default(w, RENDERER)
    assert found.variant == "tc"
    kernel = metal_kernel(w, found)
    outcome, result = kernel.run(kernel.source, kernel.launch)
    assert outcome == "ok"
    assert simulator.judged(w, kernel.program, kernel.case, result, tolerance(w, "tc")).error < 1e-6


def replace_cores(ren, cores):
    other = object.__new__(type(ren))
    other.__dict__.update({**ren.__dict__, "tensor_cores": cores})
    return other


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 2e-5), ("float16", 1e-3)])
def test_tolerance(dtype, limit):
    assert tolerance(replace(workload("Q4_K", 64, 1, 32), out_dtype=dtype), "tc") == limit


@pytest.mark.skipif(nvrtc() is None, reason="the nvidia-cuda-nvrtc-cu12 wheel is not installed")
def test_nvrtc_compiles_it_for_an_h100():
    program = """
        from tinygrad.helpers import Target
        from tinygrad.renderer.cstyle import CUDARenderer
        from autotune.tinygrad_api.lower import compile_program
        from db.records import Workload
        from kernels.ops.experts.spec import ExpertProduct
        from kernels.serve.sink import build, default
        renderer = CUDARenderer(Target("CUDA", arch="sm_90"))
        for w in (
            Workload("linear", "Q4_K", 4096, 4096, 32),
            Workload("linear", "Q8_0", 14336, 4096, 512),
            Workload("linear", "F16", 4096, 4096, 512),
            ExpertProduct("Q4_K", 1408, 2048, 64, 6, "pair", epilogue="bias_gate").workload(512),
        ):
            found = default(w, renderer)
            program = compile_program(build(w, found, renderer), renderer)
            print(found.variant, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" in program.source)
            # calls, and conversions to bfloat16
            print(program.source.count(" = __WMMA"), program.source.count("((nv_bfloat16)("))
        """
    env = {**os.environ, "DEV": "NULL", "NVRTC_PATH": str(nvrtc())}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[::2] == ["tc True"] * 4
    # a step of 4 x 4 tiles: three products each, of two parts of the 8 inputs and 4 weights a tile that a thread has
    assert lines[3] == f"{4 * 4 * 3} {4 * (8 + 4) * 2}"
