"""The relatives of `linear` against float64: fused norms, gates, experts and heads, at odd shapes."""

from dataclasses import replace

import pytest
from support.emulated import run_emulated
from support.kernel_runs import backend, run, schedule
from support.random_schedules import assert_random_schedules, counts
from support.tiers import few_of
from support.warp_emulator import COMPILER

from db.records import Outcome
from kernels.ops.experts.spec import ExpertLinear
from kernels.ops.linear.spec import GateUp, HeadLinear, Linear, RmsNormLinear
from kernels.ops.op import KernelError
from kernels.ops.registry import nbytes_moved, operands, variants
from kernels.serve import defaults
from kernels.serve.sink import applies

EPS = 1e-5
WORKLOADS = {
    "bias and residual": Linear("Q4_K", 33, 512, "bias_add").workload(2),
    "residual of halves": Linear("F16", 33, 65, "add").workload(1, "float16"),
    "times a gate": Linear("Q4_K", 33, 256, "gate", "gelu").workload(2),
    "bias, times a gate": Linear("Q8_0", 19, 64, "bias_gate", "swiglu_oai").workload(3),
    "norm": RmsNormLinear((("F32", 7),), 65, 65, EPS).workload(),
    "norm of halves": RmsNormLinear((("Q8_0", 9),), 96, 96, EPS).workload(1, "float16"),
    "norm of wider rows": RmsNormLinear((("Q8_0", 9),), 96, 100, EPS).workload(2),
    "parts of two formats": RmsNormLinear((("Q4_K", 24), ("Q6_K", 16)), 512, 512, EPS).workload(),
    "long parts": RmsNormLinear((("Q4_K", 8), ("Q6_K", 8)), 4096, 4096, EPS).workload(),
    "three parts, bias": RmsNormLinear((("Q4_0", 16), ("Q8_0", 12), ("F32", 1)), 96, 96, EPS, "bias").workload(3),
    "gate and up": GateUp("Q4_K", 19, 512, "Q4_K", eps=EPS).workload(),
    "gate and up of two formats": GateUp("Q4_K", 19, 512, "Q6_K", "gelu", EPS).workload(2),
    "no norm": GateUp("Q8_0", 19, 64, "Q8_0").workload(5),
    "experts": ExpertLinear("Q4_K", 19, 256, 5, 3, "gate_up", "Q6_K").workload(2),
    "experts of gpt-oss": ExpertLinear("Q8_0", 19, 64, 5, 3, "gate_up", "Q8_0", "swiglu_oai", True).workload(),
    "one expert": ExpertLinear("Q4_0", 7, 32, 1, 1, "gate_up", "Q4_0").workload(),
    "down": ExpertLinear("Q6_K", 19, 256, 5, 3, "down", epilogue="add").workload(2),
    "down of one": ExpertLinear("Q8_0", 9, 64, 1, 1, "down").workload(3),
    "down of all, with biases": ExpertLinear("Q8_0", 19, 64, 4, 4, "down", bias=True).workload(),
    "heads": HeadLinear("F16", 19, 65, 3, step=65, row=195).workload(2),
    "heads of blocks": HeadLinear("Q8_0", 19, 64, 3, step=64, row=192).workload(),
    "heads of wider rows": HeadLinear("Q8_0", 19, 64, 3, step=80, row=300).workload(),
}
all_workloads = pytest.mark.parametrize("w", WORKLOADS.values(), ids=WORKLOADS.keys())
# one of each op; what is special about long rows is in the warps
FEW = ("bias, times a gate", "norm", "three parts, bias", "no norm", "experts of gpt-oss", "down of one", "heads")
few_workloads = pytest.mark.parametrize(
    "w",
    few_of(WORKLOADS.values(), lambda w: w in [WORKLOADS[name] for name in FEW], pytest.mark.nightly),
    ids=WORKLOADS.keys(),
)

few_others_nightly = pytest.mark.parametrize(
    "w",
    few_of(WORKLOADS.values(), lambda w: w in [WORKLOADS[name] for name in FEW], pytest.mark.nightly),
    ids=WORKLOADS.keys(),
)


def assert_right(w, schedule):
    verdict = run(w, schedule)
    assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"


@few_others_nightly
def test_under_the_heuristic(w):
    for choice in defaults.heuristic(w, backend()):
        assert_right(w, choice)


@few_workloads
def test_under_the_default(w):
    assert_right(w, next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend())))


@few_others_nightly
@counts(1, 2)
def test_random_schedules(w, count):
    assert_random_schedules(w, count, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("op", ["rmsnorm_linear", "gate_up", "expert_linear", "head_linear"])
@counts()
def test_many_random_schedules_of_each_op(op, count):
    w = {
        "rmsnorm_linear": RmsNormLinear((("Q4_0", 16), ("Q8_0", 8)), 96, 96, EPS).workload(2),
        "gate_up": GateUp("Q4_0", 24, 96, "Q8_0", eps=EPS).workload(2),
        "expert_linear": ExpertLinear("Q4_0", 24, 96, 4, 2, "down").workload(2),
        "head_linear": HeadLinear("Q4_0", 24, 96, 4, step=96, row=384).workload(2),
    }[op]
    assert_random_schedules(w, count, 1e-5)


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize("name", few_of(WORKLOADS, lambda name: name in FEW, pytest.mark.nightly))
def test_warps_emulated(name, tmp_path):
    w = WORKLOADS[name]
    found = variants(w, "CUDA")["warp"].params(w)
    for i, params in enumerate((found[0], found[-1])):
        (folder := tmp_path / str(i)).mkdir()
        verdict = run_emulated(w, schedule("warp", params), folder)
        assert verdict.outcome is Outcome.OK, f"{params}: {verdict.reason}"


def test_only_the_experts_that_are_used_count_as_moved():
    w = WORKLOADS["down"]
    whole = sum(o.nbytes for o in operands(w) if o.role == "weight")
    few = replace(w, m=1)
    assert nbytes_moved(few) < sum(o.nbytes for o in operands(few)) - whole // 4


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (RmsNormLinear((("F32", 7),), 65, 65, 0.0).workload(), "eps above 0"),
        (RmsNormLinear((("F32", 7),), 65, 64, EPS).workload(), "at least k=65"),
        (RmsNormLinear((("F32", 7), ("F16", 0)), 65, 65, EPS).workload(), "1 row or more"),
        (RmsNormLinear((("F32", 7),) * 7, 65, 65, EPS).workload(), "1 to 6 weights"),
        (replace(WORKLOADS["parts of two formats"], n=24), "n is 24, but 40 follows"),
        (replace(WORKLOADS["parts of two formats"], format="Q6_K"), "format is 'Q6_K', but 'Q4_K' follows"),
        (GateUp("Q8_0", 19, 64, "Q8_0", "relu").workload(), "gate_up: there is no activation 'relu'"),
        (ExpertLinear("Q6_K", 19, 256, 5, 3, "sideways").workload(), "form='sideways'"),
        (ExpertLinear("Q6_K", 19, 256, 5, 3, "gate_up").workload(), "up=None"),
        (ExpertLinear("Q6_K", 19, 256, 2, 3, "down").workload(), "experts=2, used=3"),
        (HeadLinear("F16", 19, 65, 0, step=65, row=195).workload(), "heads above 0"),
        (HeadLinear("F16", 19, 65, 3, step=65, row=194).workload(), "3 heads of 65 columns"),
    ],
)
def test_specs_without_kernels(w, message):
    with pytest.raises(KernelError, match=message):
        variants(w)
