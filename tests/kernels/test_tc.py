"""The tensor-core variant: tinygrad's PYTHON device emulates tensor cores; nvrtc, if here, compiles for an H100."""

import os
import random
import subprocess
import sys
import textwrap
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.kernel_runs import MAX_UOPS, arrays, case_of, judged, linear_case, ordinary_rows, schedule
from support.metal_runs import RENDERER, metal_kernel, needs_toolchain
from support.nvrtc import nvrtc
from support.random_schedules import counts
from support.renderers import CL, METAL
from support.tiers import few_of
from tinygrad.helpers import Target
from tinygrad.renderer import Renderer
from tinygrad.runtime import ops_python

from autotune.search.space import Space
from autotune.tinygrad_api.lower import MAX_UOPS as SEARCHED_UOPS
from autotune.tinygrad_api.lower import compile_program
from autotune.trial import simulator
from db.records import Opt, Outcome, Workload
from kernels.formats import FORMATS, get_format
from kernels.ops.case import Case
from kernels.ops.experts.spec import ExpertProduct
from kernels.ops.linear import tensor_core
from kernels.ops.linear.spec import HeadLinear
from kernels.ops.registry import backend, variants
from kernels.ops.tolerance import tolerance
from kernels.serve.defaults import defaults, heuristic
from kernels.serve.limits import Limits
from kernels.serve.sink import applies, build, default
from kernels.tinygrad.schedule import ScheduledKernel, ScheduleError

TC = Opt("TC", 0, (-1, 0, 1))
ARCHS = {"METAL": "METAL", "CUDA": "sm_80"}
TYPICAL = ("Q4_K", "Q6_K", "Q8_0", "Q4_0", "F16", "IQ4_XS")


class PythonRenderer(ops_python.PythonRenderer):
    """tinygrad's device in Python, with halves: before Python 3.12 it has none in memory, where none are needed."""

    def __init__(self, device):
        super().__init__(Target("PYTHON", arch=ARCHS.get(device, device)))

    def supported_dtypes(self):
        return Renderer.supported_dtypes(self)


def workload(format, n, blocks, m):
    block = get_format(format).block
    return Workload("linear", format, n, blocks if block == 1 else blocks * block, m)


def run(w, sink, ren, case, variant="tc"):
    """The verdict on an emulated launch, and the output's bytes."""
    program = compile_program(sink, ren, max_uops=MAX_UOPS)
    memory = arrays(w, case)
    buffers = [memoryview(np.ascontiguousarray(memory[slot])).cast("B") for slot in program.uop.arg.globals]
    global_size, local_size = program.launch_dims({})
    launch = ops_python.PythonProgram(None, SimpleNamespace(lib=program.binary))
    launch(*buffers, global_size=global_size, local_size=local_size or (1, 1, 1))
    return judged(w, variant, case, {"out": memory[0]})


def assert_right(w, found, ren, case=None):
    verdict = run(w, build(w, found, ren), ren, case or ordinary_rows(w))
    assert verdict.outcome is Outcome.OK, f"{w} {found}: {verdict.reason}"
    assert verdict.error < 1e-5, f"{w} {found}: {verdict}"


@pytest.mark.parametrize("device", ARCHS)
@pytest.mark.parametrize("format", few_of(TYPICAL, lambda f: f == "Q4_K", pytest.mark.nightly))
def test_the_first_default_emulated(device, format):
    n, blocks, m = {"F16": (9, 50, 33), "Q4_0": (17, 2, 33)}.get(format, (8, 1, 32))
    w, ren = workload(format, n, blocks, m), PythonRenderer(device)
    found = default(w, ren)
    assert found.variant == "tc"
    assert_right(w, found, ren)


@pytest.mark.parametrize("device", ARCHS)
@pytest.mark.parametrize(
    "spec", [HeadLinear("F16", 9, 48, 3, step=48, row=144), HeadLinear("Q8_0", 9, 64, 2, step=80, row=210)]
)
def test_a_linear_of_each_head_emulated(device, spec):
    w, ren = spec.workload(33), PythonRenderer(device)
    found = default(w, ren)
    assert found.variant == "tc"
    verdict = run(w, build(w, found, ren), ren, case_of(w))
    assert verdict.outcome is Outcome.OK, verdict.reason


EXPERTS = {
    "of the token": ExpertProduct("Q8_0", 9, 64, 3, 2, "token").workload(33),
    "of the pair": ExpertProduct("F16", 9, 48, 3, 2, "pair", epilogue="bias").workload(32),
    "times a gate": ExpertProduct("Q4_0", 16, 64, 3, 2, "token", epilogue="bias_gate").workload(33),
    "of large tiles": ExpertProduct("Q4_K", 8, 256, 2, 1, "token").workload(256),
}


@pytest.mark.parametrize("device", ARCHS)
@pytest.mark.parametrize("name", few_of(EXPERTS, lambda name: name == "of the token", pytest.mark.nightly))
def test_the_experts_of_many_tokens_emulated(device, name):
    """The default, and a random schedule."""
    w, ren = EXPERTS[name], PythonRenderer(device)
    found = default(w, ren)
    assert found.variant == "tc"
    start = schedule("tc", {}, tensor_core.opts(w.format, device))
    other = random.Random(f"{device}{name}").choice(list(Space(w, ren, Limits(body=100)).children(start))).schedule
    for choice in (found, other):
        verdict = run(w, build(w, choice, ren), ren, case_of(w))
        assert verdict.outcome is Outcome.OK, f"{choice}: {verdict.reason}"


@pytest.mark.parametrize("device", ARCHS)
def test_what_is_done_to_a_result_emulated(device):
    w = replace(workload("Q8_0", 8, 2, 32), epilogue="bias_gate", extra=())
    ren = PythonRenderer(device)
    verdict = run(w, build(w, default(w, ren), ren), ren, case_of(w))
    assert verdict.outcome is Outcome.OK, verdict.reason


@pytest.mark.parametrize("device", ARCHS)
@pytest.mark.parametrize("format", few_of(TYPICAL, lambda f: f in ("Q4_K", "Q8_0"), pytest.mark.nightly))
@counts()
def test_random_schedules_emulated(device, format, count):
    rng, ren = random.Random(f"{device}{format}"), PythonRenderer(device)
    w = workload(format, 16, {1: rng.choice((48, 63)), 32: 2}.get(get_format(format).block, 1), rng.choice((32, 33)))
    space = Space(w, ren, Limits(body=100))
    for _ in range(count):
        # unrolled: the interpreter is slow to unpack all and choose then
        here = schedule("tc", {}, tensor_core.opts(format, device))
        for _ in range(rng.randint(1, 3)):
            if children := list(space.children(here)):
                here = rng.choice(children).schedule
        assert_right(w, here, ren)


@pytest.mark.parametrize("device", ARCHS)
@pytest.mark.parametrize("opts", [(), (Opt("UPCAST", None, 2, "0"), Opt("LOCAL", None, 2, "1"))], ids=["bare", "tiled"])
def test_quants_that_are_chosen_at_run_time_emulated(device, opts):
    w, ren = workload("Q4_0", 16, 2, 32), PythonRenderer(device)
    assert_right(w, schedule("tc", {}, (TC, *opts)), ren)


def test_rows_of_every_scale_emulated():
    w, ren = workload("Q8_0", 16, 16, 32), PythonRenderer("CUDA")
    assert_right(w, schedule("tc", {}, tensor_core.opts("Q8_0", "CUDA")), ren, case_of(w))


@pytest.mark.parametrize("format", few_of(FORMATS, lambda f: f in TYPICAL, pytest.mark.nightly))
def test_every_format_emulated(format):
    w = workload(format, 8, 16 if get_format(format).block == 1 else 1, 16)
    assert_right(w, schedule("tc", {}, tensor_core.opts(format, "CUDA")), PythonRenderer("CUDA"))


@pytest.mark.parametrize("device", ARCHS)
@pytest.mark.parametrize("format", ["F32", "F16", "BF16"])
def test_columns_and_rows_beside_whole_tiles_emulated(device, format):
    assert_right(
        workload(format, 11, 35, 19), schedule("tc", {}, tensor_core.opts(format, device)), PythonRenderer(device)
    )


@pytest.mark.parametrize("device", ARCHS)
@pytest.mark.parametrize("sizes", [(1e-6,), (1e6,), (88_000,), (1, 1e-6, 1e6, 88_000)], ids=str)
def test_small_and_large_inputs_emulated(device, sizes):
    w, ren = workload("Q8_0", 8, 2, 16), PythonRenderer(device)
    case, size = ordinary_rows(w), np.resize(np.float32(sizes), w.m)
    truth = case.truths["out"]
    scaled = replace(truth, reference=truth.reference * size[:, None], row_scale=truth.row_scale * size)
    case = Case({**case.arrays, "x": case.arrays["x"] * size[:, None]}, {"out": scaled})
    assert_right(w, schedule("tc", {}, tensor_core.opts("Q8_0", device)), ren, case)


@pytest.mark.parametrize("device", ARCHS)
def test_a_large_weight_emulated(device):
    w, ren = workload("F32", 8, 16, 16), PythonRenderer(device)
    weights = np.ones((8, 16), np.float32)
    weights[3, 5] = 1e30
    assert_right(w, schedule("tc", {}, tensor_core.opts("F32", device)), ren, linear_case(w, weights.view(np.uint8)))


def test_a_weight_that_bfloat16_cannot_hold_gives_no_plausible_number():
    w, ren = workload("F32", 8, 16, 16), PythonRenderer("CUDA")
    weights = np.full((8, 16), 1e-3, np.float32)
    weights[3, 5] = 3.4e38
    case = linear_case(w, weights.view(np.uint8))
    verdict = run(w, build(w, schedule("tc", {}, tensor_core.opts("F32", "CUDA")), ren), ren, case)
    assert verdict.outcome is Outcome.WRONG_RESULT
    assert verdict.reason.startswith("NaN or infinity, first at (0, 3)")


@pytest.mark.parametrize("device", ARCHS)
def test_a_nan_spoils_the_results_of_its_token_alone(device):
    w, ren = workload("BF16", 8, 16, 16), PythonRenderer(device)
    case = ordinary_rows(w)
    case.arrays["x"][5, 7] = np.nan
    verdict = run(w, build(w, schedule("tc", {}, tensor_core.opts("BF16", device)), ren), ren, case)
    assert verdict.reason.startswith("NaN or infinity, first at (5, 0)")


@pytest.mark.parametrize("device", ARCHS)
def test_lanes_stay_neighbours(device):
    """tinygrad 0.14 makes one dimension of a warp and what follows it where a workgroup has more than three."""
    w, ren = Workload("linear", "Q4_0", 32, 32, 96), PythonRenderer(device)
    opts = (TC, Opt("LOCAL", None, 2, "1"), Opt("LOCAL", None, 3, "0"))
    verdict = run(w, build(w, schedule("tc", {}, opts), ren), ren, case_of(w))
    assert verdict.outcome is Outcome.OK, verdict.reason
    with pytest.raises(ScheduleError, match="lanes of a tensor core apart"):
        build(w, schedule("tc", {}, (*opts, Opt("LOCAL", None, 2, "1"))), ren)


@pytest.mark.parametrize(("format", "opts"), [("F32", ()), ("BF16", (Opt("UNROLL", None, 8, "2"),))])
def test_a_sum_that_tc_itself_pads_comes_out_right(format, opts):
    """Not with PADTO, which is refused. Metal's tensor cores take floats, so that other variants get there too."""
    w, ren = workload(format, 17, 57, 33), PythonRenderer("METAL")
    found = schedule("dequant", {"lanes": 1}, (Opt("TC", 0, (-1, 2, 1)), *opts))
    verdict = run(w, build(w, found, ren), ren, case_of(w), "dequant")
    assert verdict.outcome is Outcome.OK, verdict.reason
    with pytest.raises(ScheduleError, match="a sum over a padded loop"):
        build(w, schedule("dequant", {"lanes": 1}, (Opt("PADTO", None, 8, "2"),)), ren)


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
        seen.append(space.candidate(here).shape.body)
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
