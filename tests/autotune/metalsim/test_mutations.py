"""Deliberate mistakes in the Metal source of real kernels: what the simulator makes of each.

The documented exceptions, at the end, are mistakes that it cannot see, or that are none; README.md has them too.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.metal_runs import RENDERER, WRONG, MetalKernel, metal_kernel
from support.tiers import few_of

from db.records import Schedule, Workload
from kernels.ops.linear.spec import RmsNormLinear
from kernels.ops.norm.spec import RmsNorm
from kernels.serve import defaults
from kernels.serve.sink import applies

BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"


def default(w: Workload, wanted: str) -> MetalKernel:
    """The first of our Metal defaults whose Metal source has `wanted` in it."""
    for s in defaults.defaults(w, "METAL"):
        if applies(w, s, "METAL", RENDERER) and wanted in (made := metal_kernel(w, s)).source:
            return made
    raise AssertionError(f"no default for Metal has {wanted}")


def grouped() -> MetalKernel:
    """Threads share a row through threadgroup memory."""
    return default(Workload("linear", "Q8_0", 20, 256), BARRIER)


def warped() -> MetalKernel:
    """The lanes of a simdgroup share a row and add with shuffles; two simdgroups a threadgroup."""
    params = (("rows", 1), ("staged", 0), ("warps", 2), ("words", 4))
    return metal_kernel(Workload("linear", "Q8_0", 20, 512), Schedule("warp", params, ()))


def staged() -> MetalKernel:
    """Two simdgroups put x, times its norm's weight, into threadgroup memory, and the sums of its squares."""
    params = (("rows", 1), ("staged", 1), ("warps", 2), ("words", 4))
    return metal_kernel(RmsNormLinear((("Q8_0", 20),), 512, 512, 1e-5).workload(), Schedule("warp", params, ()))


def tensor() -> MetalKernel:
    """Halves multiplied by simdgroup matrices."""
    return default(Workload("linear", "F16", 32, 64, 32), "simdgroup_multiply_accumulate")


def norm() -> MetalKernel:
    return default(RmsNorm(100, 1e-6).workload(), "simd_shuffle_xor")


KERNELS = {"grouped": grouped, "warped": warped, "staged": staged, "tensor": tensor, "norm": norm}

# kernel, what is replaced, by what, and what is to come of it
MUTATIONS = {
    "barrier missing": ("grouped", BARRIER, "", WRONG),
    "barrier of the simdgroup only, for no memory": (
        "grouped",
        BARRIER,
        "simdgroup_barrier(mem_flags::mem_none);",
        WRONG,
    ),
    "barrier for other memory": ("grouped", BARRIER, BARRIER.replace("mem_threadgroup", "mem_device"), WRONG),
    "barrier in a divergent branch": ("grouped", BARRIER, f"if (lidx0<4) {{ {BARRIER} }}", "divergent_barrier"),
    "barrier after some have returned": (
        "grouped",
        BARRIER,
        f"if (lidx0==7) {{ return; }} {BARRIER}",
        "divergent_barrier",
    ),
    "a different barrier for each half": (
        "grouped",
        BARRIER,
        f"if (lidx0<4) {{ {BARRIER} }} else {{ {BARRIER} }}",
        "divergent_barrier",
    ),
    "accumulator not initialised": ("grouped", "*(buf0+0) = 0.0f;", "", WRONG),
    "second accumulator not initialised": ("grouped", "*(buf1+0) = 0.0f;", "", WRONG),
    "accumulator started at one": ("grouped", "*(buf1+0) = 0.0f;", "*(buf1+0) = 1.0f;", WRONG),
    "stored past the end": ("grouped", "(data0_20+gidx0)", "(data0_20+(gidx0+4096))", "out_of_bounds"),
    "stored before the start": ("grouped", "(data0_20+gidx0)", "(data0_20+(gidx0-1))", "out_of_bounds"),
    "stored one too far": ("grouped", "(data0_20+gidx0)", "(data0_20+(gidx0+1))", WRONG),
    "weight read past the end": ("grouped", "(gidx0<<6)", "((gidx0+1)<<6)", "out_of_bounds"),
    "weight read before the start": ("grouped", "(gidx0<<6)", "((gidx0-1)<<6)", "out_of_bounds"),
    "scale read one too far": ("grouped", "lidx0+(gidx0<<3)", "lidx0+(gidx0<<3)+1", "out_of_bounds"),
    "vector not aligned": ("grouped", "data3_256+alu1)", "data3_256+(alu1+2))", "misaligned"),
    "inputs taken for halves": ("grouped", "device float* data3_256", "device half* data3_256", "misaligned"),
    "nobody stores": ("grouped", "(lidx0==0)", "(lidx0==8)", WRONG),
    "loop one short": ("grouped", "Ridx105 < 8", "Ridx105 < 7", WRONG),
    "loop one long": ("grouped", "Ridx105 < 8", "Ridx105 < 9", "out_of_bounds"),
    "loop without end": ("grouped", "Ridx105 < 8; Ridx105++", "Ridx105 < 8; ", "timeout"),
    "loop without end or effect": ("grouped", BARRIER, "for (;;) {}", "timeout"),
    "threadgroup array too short": ("grouped", "buf2[8]", "buf2[7]", "out_of_bounds"),
    "threadgroup memory of 32772 bytes": ("grouped", "buf2[8]", "buf2[8193]", "limit"),
    "an array of each thread for threadgroup memory": (
        "grouped",
        "threadgroup __attribute__((aligned(16))) float buf2",
        "float buf2",
        WRONG,
    ),
    "two threads store at one place": ("grouped", "*(buf2+lidx0) =", "*(buf2+(lidx0>>1)) =", WRONG),
    "two threadgroups store at one place": ("grouped", "(data0_20+gidx0)", "(data0_20+(gidx0>>1))", "race"),
    "accumulator of integers": ("grouped", "float buf0[1]", "int buf0[1]", WRONG),
    "sign lost": ("grouped", "as_type<int>", "as_type<uint>", WRONG),
    "half taken for an integer": ("grouped", "as_type<half>", "", WRONG),
    "bits of another size": ("grouped", "as_type<half>", "as_type<float>", "compile_error"),
    "no such name": ("grouped", "val5.w", "val55.w", "compile_error"),
    "shifted by all bits": ("grouped", "<<24u", "<<32u", "bad_shift"),
    "shifted by a negative number": ("grouped", "(lidx0<<3)", "(lidx0<<(lidx0-1))", "bad_shift"),
    "divided by zero": ("grouped", "(gidx0<<6)", "((gidx0<<6)/(lidx0>>3))", "divide_by_zero"),
    "remainder of zero": ("grouped", "(gidx0<<6)", "((gidx0<<6)%(lidx0&8))", "divide_by_zero"),
    "shuffle with the wrong mask": ("warped", "simd_shuffle_xor(alu4, 8)", "simd_shuffle_xor(alu4, 16)", WRONG),
    "shuffle with a lane that is not there": (
        "warped",
        "simd_shuffle_xor(val6, 16)",
        "simd_shuffle_xor(val6, 32)",
        "absent_lane",
    ),
    "shuffle left out": ("warped", "simd_shuffle_xor(alu6, 4)", "0.0f", WRONG),
    "shuffle by lanes without the others": (
        "warped",
        "simd_shuffle_xor(alu4, 8)",
        "(lidx0<16)?simd_shuffle_xor(alu4, 8):0.0f",
        "divergent_barrier",
    ),
    "shuffle after some lanes have returned": (
        "warped",
        "float alu5 =",
        "if (lidx0==31) { return; } float alu5 =",
        "divergent_barrier",
    ),
    "axes swapped": ("warped", "lidx1 = lid.y", "lidx1 = lid.x", "out_of_bounds"),
    "every lane stores its part": (
        "warped",
        "simd_shuffle_xor(alu10, 1);\n  if ((lidx0==0))",
        "0.0f;\n  if (true)",
        "race",
    ),
    "x not waited for": ("staged", BARRIER, "", WRONG),
    "x waited for by its own simdgroup": ("staged", BARRIER, BARRIER.replace("threadgroup_b", "simdgroup_b"), WRONG),
    "a mask on the wrong side": ("norm", "(lidx0<18)", "(lidx0<19)", WRONG),
    "a clamp left out": ("norm", "((alu1<-100)?-100:alu1)", "alu1", "out_of_bounds"),
    "matrix elements swapped": ("tensor", "= b[0]", "= b[1]", WRONG),
    "lanes of a matrix mistaken": ("tensor", "(alu0<<2)+(alu1<<1)", "(alu1<<2)+(alu0<<1)", WRONG),
    "a product left out of the sum": ("tensor", "(wmma30.x+", "(", WRONG),
    "matrices multiplied by some lanes": (
        "tensor",
        "simdgroup_multiply_accumulate(mat_c, mat_a, mat_b, mat_c);",
        "if (a[0] > half(0.0f)) { simdgroup_multiply_accumulate(mat_c, mat_a, mat_b, mat_c); }",
        "divergent_barrier",
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_themselves_are_right(name):
    kernel = KERNELS[name]()
    kind, result = kernel.run(kernel.source, replace(kernel.launch, strict=True))
    assert (kind, result.verdict.suspicion) == ("ok", "")


# the first of each kernel and outcome
FEW = {(kernel, outcome): name for name, (kernel, _, _, outcome) in reversed(MUTATIONS.items())}.values()


@pytest.mark.parametrize("mutation", few_of(MUTATIONS, lambda name: name in FEW))
def test_mutations(mutation):
    name, old, new, expected = MUTATIONS[mutation]
    kernel = KERNELS[name]()
    assert old in kernel.source
    launch = replace(kernel.launch, seconds=0.3 if expected == "timeout" else 60.0)
    kind, result = kernel.run(kernel.source.replace(old, new), launch)
    assert kind == expected, result.verdict


@pytest.mark.parametrize(
    ("name", "threads", "expected"),
    [
        ("warped", (32, 33), "limit"),
        ("warped", (16, 2), WRONG),
        ("warped", (8, 2), "absent_lane"),
        ("grouped", (7,), WRONG),
        ("tensor", (31, 4), "absent_lane"),
    ],
)
def test_threads_that_are_not_there(name, threads, expected):
    kernel = KERNELS[name]()
    kind, _ = kernel.run(kernel.source, replace(kernel.launch, threads=threads))
    assert kind == expected


# kernel, what is replaced, by what, and why nothing is said
EXCEPTIONS = {
    "all threads store what one should": (
        "grouped",
        "(lidx0==0)",
        "(lidx0<8)",
        "equal values: defined on a GPU as well",
    ),
    "a cast to another address space": (
        "grouped",
        "(device uint4*)",
        "(threadgroup uint4*)",
        "on the host there is one address space; only Apple's compiler refuses it",
    ),
}


@pytest.mark.parametrize("mutation", EXCEPTIONS)
def test_documented_exceptions(mutation):
    name, old, new, _ = EXCEPTIONS[mutation]
    kernel = KERNELS[name]()
    assert old in kernel.source
    assert kernel.run(kernel.source.replace(old, new), kernel.launch)[0] == "ok"
