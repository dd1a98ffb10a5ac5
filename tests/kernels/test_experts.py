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
from db.records import Outcome
from kernels.ops.experts.expert_tiles import Tiles
from kernels.ops.experts.spec import ExpertPlaces, ExpertProduct, ExpertSum, ExpertTiles
from kernels.ops.op import KernelError
from kernels.ops.registry import nbytes_moved, operands, variants
from kernels.serve import defaults
from kernels.serve.sink import applies, build, default

WORKLOADS = {
    "places": ExpertPlaces(5, 3).workload(33),
    "places of large tiles": ExpertPlaces(4, 2).workload(257),
    "places of one": ExpertPlaces(1, 1).workload(),
    "places of all": ExpertPlaces(4, 4).workload(32),
    "tiles": ExpertTiles(5, 3).workload(33),
    "large tiles": ExpertTiles(4, 2).workload(257),
    "tiles of one": ExpertTiles(1, 1).workload(),
    "tiles of all": ExpertTiles(4, 4).workload(32),
    "of the token": ExpertProduct("Q4_K", 19, 256, 5, 3, "token").workload(33),
    "of the pair": ExpertProduct("Q6_K", 20, 256, 5, 3, "pair").workload(33),
    "times a gate": ExpertProduct("Q4_0", 16, 64, 5, 3, "token", "gelu", "gate").workload(32),
    "as gpt-oss": ExpertProduct("MXFP4", 19, 64, 5, 3, "token", "swiglu_oai", "bias_gate").workload(33),
    "of large tiles": ExpertProduct("Q8_0", 9, 32, 4, 2, "pair", epilogue="bias").workload(257),
    "of halves": ExpertProduct("F16", 19, 50, 5, 3, "pair", epilogue="bias").workload(33, "float16"),
    "of one": ExpertProduct("Q8_0", 7, 32, 1, 1, "pair").workload(),
    "sum": ExpertSum(19, 3).workload(33),
    "sum, residual": ExpertSum(96, 8, "add").workload(2, "float16"),
    "weighted": ExpertSum(64, 1, "add").workload(4),
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
    spec = {
        "expert_places": ExpertPlaces(4, 2),
        "expert_tiles": ExpertTiles(4, 2),
        "expert_product": ExpertProduct("Q4_0", 24, 96, 4, 2, of="token", epilogue="bias_gate"),
        "expert_sum": ExpertSum(24, 2, "add"),
    }[op]
    assert_random_schedules(spec.workload(32), count, 1e-5)


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
    w = ExpertProduct("Q8_0", 64, 64, 64, 1, "token").workload(32)
    few, many = nbytes_moved(w), nbytes_moved(replace(w, m=512))
    weight = sum(o.nbytes for o in operands(w) if o.role == "weight")
    assert weight // 2 < few < weight < many


@pytest.mark.parametrize(("format", "n", "k"), [("Q4_K", 1408, 2048), ("Q8_0", 2048, 1408), ("MXFP4", 2880, 2880)])
@pytest.mark.parametrize("m", few_of([32, 512], lambda m: m == 32))
def test_defaults_at_real_sizes(format, n, k, m):
    w = ExpertProduct(format, n, k, 64, 6, "token", epilogue="gate").workload(m)
    found = default(w, METAL)
    assert found.variant == "tc"
    assert ("UPCAST", 4, "1") in {(o.op, o.arg, o.range) for o in found.opts}
    program = compile_program(build(w, found, METAL), METAL, max_uops=MAX_UOPS)
    assert program.uops < 4000


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (replace(WORKLOADS["places"], extra=(("experts", 5),)), "needs the field used, a whole number"),
        (ExpertTiles(5, 6).workload(), "no kernel for 6 of 5 experts"),
        (replace(WORKLOADS["tiles"], n=4), "n is 4, but 5 follows"),
        (ExpertProduct("Q4_K", 19, 256, 5, 3, "nobody").workload(33), "of='nobody'"),
        (ExpertProduct("Q4_K", 19, 256, 2000, 2, "token").workload(33), "2 of 2000 experts"),
        (ExpertProduct("Q4_0", 16, 64, 5, 3, "token", "relu", "gate").workload(32), "no activation 'relu'"),
        (ExpertSum(19, 0).workload(33), "used=0"),
    ],
)
def test_specs_without_kernels(w, message):
    with pytest.raises(KernelError, match=message):
        variants(w)
