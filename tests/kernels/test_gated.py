"""The relatives of `linear` against float64: fused norms, gates, experts and heads, at odd shapes."""

from dataclasses import replace

import pytest
from support.emulated import run_emulated
from support.kernel_runs import backend, run, schedule
from support.random_schedules import assert_random_schedules, counts
from support.tiers import few_of
from support.warp_emulator import COMPILER

from db.records import Outcome, Workload
from kernels.ops.op import KernelError
from kernels.ops.registry import nbytes_moved, operands, variants
from kernels.serve import defaults
from kernels.serve.sink import applies


def workload(op, format, n, k, m=1, epilogue="none", x_dtype="float32", **extra):
    return Workload(op, format, n, k, m, x_dtype, x_dtype, epilogue, tuple(sorted(extra.items())))


EPS = {"eps": "1e-05"}
EXPERTS = {"experts": 5, "used": 3}
WORKLOADS = {
    "bias and residual": workload("linear", "Q4_K", 33, 512, 2, "bias_add"),
    "residual of halves": workload("linear", "F16", 33, 65, 1, "add", "float16"),
    "times a gate": workload("linear", "Q4_K", 33, 256, 2, "gate", act="gelu"),
    "bias, times a gate": workload("linear", "Q8_0", 19, 64, 3, "bias_gate", act="swiglu_oai"),
    "norm": workload("rmsnorm_linear", "F32", 7, 65, **EPS),
    "norm of halves": workload("rmsnorm_linear", "Q8_0", 9, 96, 1, "none", "float16", **EPS),
    "parts of two formats": workload("rmsnorm_linear", "Q4_K", 40, 512, parts="Q4_K.24+Q6_K.16", **EPS),
    "long parts": workload("rmsnorm_linear", "Q4_K", 16, 4096, parts="Q4_K.8+Q6_K.8", **EPS),
    "three parts, bias": workload("rmsnorm_linear", "Q4_0", 29, 96, 3, "bias", parts="Q4_0.16+Q8_0.12+F32.1", **EPS),
    "gate and up": workload("gate_up", "Q4_K", 19, 512, act="silu", norm="rms", up="Q4_K", **EPS),
    "gate and up of two formats": workload("gate_up", "Q4_K", 19, 512, 2, act="gelu", norm="rms", up="Q6_K", **EPS),
    "no norm": workload("gate_up", "Q8_0", 19, 64, 5, act="silu", norm="none"),
    "experts": workload("expert_linear", "Q4_K", 19, 256, 2, form="gate_up", up="Q6_K", **EXPERTS),
    "experts of gpt-oss": workload(
        "expert_linear", "Q8_0", 19, 64, act="swiglu_oai", bias=1, form="gate_up", **EXPERTS
    ),
    "one expert": workload("expert_linear", "Q4_0", 7, 32, form="gate_up", experts=1, used=1),
    "down": workload("expert_linear", "Q6_K", 19, 256, 2, "add", form="down", **EXPERTS),
    "down of one": workload("expert_linear", "Q8_0", 9, 64, 3, form="down", experts=1, used=1),
    "down of all, with biases": workload("expert_linear", "Q8_0", 19, 64, form="down", bias=1, experts=4, used=4),
    "heads": workload("head_linear", "F16", 19, 65, 2, heads=3),
    "heads of blocks": workload("head_linear", "Q8_0", 19, 64, heads=3),
    "heads of wider rows": workload("head_linear", "Q8_0", 19, 64, heads=3, step=80, row=300),
}
all_workloads = pytest.mark.parametrize("w", WORKLOADS.values(), ids=WORKLOADS.keys())
# one of each op; what is special about long rows is in the warps
FEW = ("bias, times a gate", "norm", "three parts, bias", "no norm", "experts of gpt-oss", "down of one", "heads")
few_workloads = pytest.mark.parametrize(
    "w", few_of(WORKLOADS.values(), lambda w: w in [WORKLOADS[name] for name in FEW]), ids=WORKLOADS.keys()
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


@pytest.mark.parametrize("op", ["rmsnorm_linear", "gate_up", "expert_linear", "head_linear"])
@counts()
def test_many_random_schedules_of_each_op(op, count):
    w = {
        "rmsnorm_linear": workload("rmsnorm_linear", "Q4_0", 24, 96, 2, parts="Q4_0.16+Q8_0.8", **EPS),
        "gate_up": workload("gate_up", "Q4_0", 24, 96, 2, act="silu", norm="rms", up="Q8_0", **EPS),
        "expert_linear": workload("expert_linear", "Q4_0", 24, 96, 2, form="down", experts=4, used=2),
        "head_linear": workload("head_linear", "Q4_0", 24, 96, 2, heads=4),
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
    ("name", "extra", "message"),
    [
        ("norm", {"eps": "0"}, "eps"),
        ("norm", {}, "eps"),
        ("parts of two formats", {"parts": "Q4_K.24", **EPS}, "are not 40 rows"),
        ("parts of two formats", {"parts": "Q6_K.16+Q4_K.24", **EPS}, "begin with Q4_K"),
        ("parts of two formats", {"parts": "Q4_K.x", **EPS}, "FORMAT.rows"),
        ("no norm", {"act": "relu"}, "no kernel of gate_up has the activation 'relu'"),
        ("down", {"form": "sideways", **EXPERTS}, "form='sideways'"),
        ("down", {"form": "down", "experts": 2, "used": 3}, "experts=2 used=3"),
        ("heads", {}, "heads"),
    ],
)
def test_extras_without_kernels(name, extra, message):
    with pytest.raises(KernelError, match=message):
        variants(replace(WORKLOADS[name], extra=tuple(sorted(extra.items()))))
