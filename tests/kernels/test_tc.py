"""What the tensor-core variant computes, on tinygrad's PYTHON device, which emulates tensor cores."""

import random
from dataclasses import replace

import numpy as np
import pytest
from support.kernel_runs import case_of, linear_case, ordinary_rows, schedule
from support.random_schedules import counts
from support.tensor_cores import ARCHS, TC, TYPICAL, PythonRenderer, assert_right, run, workload
from support.tiers import few_of

from autotune.search.space import Space
from db.records import Opt, Outcome, Workload
from kernels.formats import FORMATS, get_format
from kernels.ops.case import Case
from kernels.ops.experts.spec import ExpertProduct
from kernels.ops.linear import tensor_core
from kernels.ops.linear.spec import HeadLinear
from kernels.serve.limits import Limits
from kernels.serve.sink import build, default
from kernels.tinygrad.schedule import ScheduleError

FEW_ARCHS = few_of(ARCHS, lambda device: device == "METAL")


@pytest.mark.parametrize("device", FEW_ARCHS)
@pytest.mark.parametrize("format", few_of(TYPICAL, lambda f: f == "Q4_K", pytest.mark.nightly))
def test_the_first_default_emulated(device, format):
    n, blocks, m = {"F16": (9, 50, 33), "Q4_0": (17, 2, 33)}.get(format, (8, 1, 32))
    w, ren = workload(format, n, blocks, m), PythonRenderer(device)
    found = default(w, ren)
    assert found.variant == "tc"
    assert_right(w, found, ren)


@pytest.mark.parametrize("device", FEW_ARCHS)
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


@pytest.mark.parametrize("device", FEW_ARCHS)
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
