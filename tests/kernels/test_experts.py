"""A mixture of experts over many tokens: sorted pairs and the products over them, against their references."""

from dataclasses import replace

import pytest
from support.emulated import run_emulated
from support.kernel_runs import MAX_UOPS, backend, case_of, compiled, run_program
from support.random_schedules import assert_random_schedules, counts
from support.renderers import METAL
from support.tiers import few_of
from support.warp_emulator import COMPILER, CUDASource

from autotune.tinygrad_api.lower import compile_program
from db.records import Outcome, Workload
from kernels.ops.experts.expert_tiles import Tiles
from kernels.ops.op import KernelError
from kernels.ops.registry import nbytes_moved, operands, variants
from kernels.serve import defaults
from kernels.serve.sink import applies, build, default


def workload(op, format, n, k, m=33, epilogue="none", x_dtype="float32", **extra):
    return Workload(op, format, n, k, m, x_dtype, x_dtype, epilogue, tuple(sorted(extra.items())))


FEW = {"experts": 5, "used": 3}
PAIR, TOKEN = {"of": "pair"} | FEW, {"of": "token"} | FEW
WORKLOADS = {
    "places": workload("expert_places", "F32", 5, 5, **FEW),
    "places of large tiles": workload("expert_places", "F32", 4, 4, 257, experts=4, used=2),
    "places of one": workload("expert_places", "F32", 1, 1, 1, experts=1, used=1),
    "places of all": workload("expert_places", "F32", 4, 4, 32, experts=4, used=4),
    "tiles": workload("expert_tiles", "F32", 5, 5, **FEW),
    "large tiles": workload("expert_tiles", "F32", 4, 4, 257, experts=4, used=2),
    "tiles of one": workload("expert_tiles", "F32", 1, 1, 1, experts=1, used=1),
    "tiles of all": workload("expert_tiles", "F32", 4, 4, 32, experts=4, used=4),
    "of the token": workload("expert_product", "Q4_K", 19, 256, **TOKEN),
    "of the pair": workload("expert_product", "Q6_K", 20, 256, **PAIR),
    "times a gate": workload("expert_product", "Q4_0", 16, 64, 32, "gate", act="gelu", **TOKEN),
    "as gpt-oss": workload("expert_product", "MXFP4", 19, 64, 33, "bias_gate", act="swiglu_oai", **TOKEN),
    "of large tiles": workload("expert_product", "Q8_0", 9, 32, 257, "bias", of="pair", experts=4, used=2),
    "of halves": workload("expert_product", "F16", 19, 50, 33, "bias", "float16", **PAIR),
    "of one": workload("expert_product", "Q8_0", 7, 32, 1, of="pair", experts=1, used=1),
    "sum": workload("expert_sum", "F32", 19, 19, used=3),
    "sum, residual": workload("expert_sum", "F32", 96, 96, 2, "add", "float16", used=8),
    "weighted": workload("expert_sum", "F32", 64, 64, 4, "add", used=1),
}
SLOW = ("of the token", "of the pair", "of large tiles", "as gpt-oss", "of halves")
few_workloads = pytest.mark.parametrize(
    "w",
    few_of(WORKLOADS.values(), lambda w: w not in [WORKLOADS[name] for name in SLOW], pytest.mark.nightly),
    ids=WORKLOADS.keys(),
)


def assert_right(w, choice):
    program = compiled(w, choice)
    assert program.uop.arg.globals == tuple(range(len(operands(w))))
    for seed in range(3):
        verdict = run_program(w, choice.variant, program, case_of(w, seed))
        assert verdict.outcome is Outcome.OK, f"{choice}: {verdict.reason}"


@few_workloads
def test_under_the_heuristic(w):
    for choice in defaults.heuristic(w, backend()):
        assert_right(w, choice)


@few_workloads
def test_under_the_default(w):
    assert_right(w, next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend())))


@few_workloads
@counts(1, 2)
def test_random_schedules(w, count):
    assert_random_schedules(w, count, 1e-5 if w.x_dtype == "float32" else 1e-3)


@pytest.mark.parametrize("op", ["expert_places", "expert_tiles", "expert_product", "expert_sum"])
@counts()
def test_many_random_schedules_of_each_op(op, count):
    sizes = {"experts": 4, "used": 2}
    w = {
        "expert_product": workload(op, "Q4_0", 24, 96, 32, "bias_gate", act="silu", of="token", **sizes),
        "expert_sum": workload(op, "F32", 24, 24, 32, "add", used=2),
    }.get(op, workload(op, "F32", 4, 4, 32, **sizes))
    assert_random_schedules(w, count, 1e-5)


@pytest.mark.skipif(COMPILER is None, reason="no clang to compile the emulated kernel with")
@pytest.mark.parametrize(
    "name",
    few_of(sorted(WORKLOADS.keys() - {"sum"}), lambda name: name in ("places", "tiles", "times a gate", "weighted")),
)
def test_the_default_of_a_gpu_emulated(name, tmp_path):
    """With as many tokens as there are in a chunk of a prompt, which its threads can share out."""
    w = replace(WORKLOADS[name], m=512 if "large" in name else 32)
    found = default(w, CUDASource())
    assert {o.op for o in found.opts} & {"LOCAL", "GROUP"}
    verdict = run_emulated(w, found, tmp_path)
    assert verdict.outcome is Outcome.OK, verdict.reason


def test_there_are_tiles_for_whatever_is_chosen():
    """Of each expert as many as its pairs need, one more where the last is not full; and rows that are not there."""
    for tokens in (32, 512):
        tiles = Tiles(tokens, 64, 6)
        assert tiles.count * tiles.size >= tiles.pairs + 64 * (tiles.size - 1)
    assert [o.shape for o in operands(WORKLOADS["of the token"])][-2:] == [(99 // 16 + 5, 16), (99,)]


def test_experts_that_can_be_in_use_count_as_moved():
    w = workload("expert_product", "Q8_0", 64, 64, 32, of="token", experts=64, used=1)
    few, many = nbytes_moved(w), nbytes_moved(replace(w, m=512))
    weight = sum(o.nbytes for o in operands(w) if o.role == "weight")
    assert weight // 2 < few < weight < many


@pytest.mark.parametrize(("format", "n", "k"), [("Q4_K", 1408, 2048), ("Q8_0", 2048, 1408), ("MXFP4", 2880, 2880)])
@pytest.mark.parametrize("m", few_of([32, 512], lambda m: m == 32))
def test_defaults_at_real_sizes(format, n, k, m):
    w = workload("expert_product", format, n, k, m, "gate", of="token", act="silu", experts=64, used=6)
    found = default(w, METAL)
    assert found.variant == "tc"
    assert ("UPCAST", 4, "1") in {(o.op, o.arg, o.range) for o in found.opts}
    program = compile_program(build(w, found, METAL), METAL, max_uops=MAX_UOPS)
    assert program.uops < 4000


@pytest.mark.parametrize(
    ("name", "extra", "message"),
    [
        ("places", {"experts": 5}, "counts; saw 5 and None"),
        ("tiles", {"experts": 5, "used": 6}, "no kernel for 6 of 5 experts"),
        ("tiles", {"experts": 4, "used": 2}, "n=5 k=5 and 4 experts"),
        ("of the token", FEW, "of=None"),
        ("of the token", {"of": "token", "experts": 2000, "used": 2}, "2 of 2000 experts"),
        ("times a gate", {**TOKEN, "act": "relu"}, "the activation 'relu'"),
        ("sum", {"used": 0}, "used=0"),
    ],
)
def test_extras_without_kernels(name, extra, message):
    with pytest.raises(KernelError, match=message):
        variants(replace(WORKLOADS[name], extra=tuple(sorted(extra.items()))))
