"""Kernels over quantised activations and tiled weights, against the float64 reference."""

import numpy as np
import pytest
from support.kernel_runs import backend, case_of, run

from db.records import Outcome
from kernels.formats import get_format
from kernels.ops.embed.spec import Embed
from kernels.ops.experts.spec import ExpertLinear
from kernels.ops.linear.spec import GateUp, HeadLinear, Linear
from kernels.ops.q8.spec import Q8_FORMATS, Quantise
from kernels.ops.registry import KernelError, variants
from kernels.serve.defaults import defaults

BLOCK = {format: get_format(format).block for format in Q8_FORMATS}
MORE = ("Q4_1", "Q6_K")


def int8(spec, m=1):
    return spec.workload(m, "q8", "float32")


def assert_right(w, case=None):
    """Under the first of the default schedules."""
    verdict = run(w, defaults(w, backend())[0], case or case_of(w))
    assert verdict.outcome is Outcome.OK, f"{w}: {verdict.reason}"
    return verdict


@pytest.mark.parametrize("format", Q8_FORMATS)
def test_linear(format):
    """Rows that are no whole tiles, and an odd number of blocks."""
    assert assert_right(int8(Linear(format, 50, 3 * BLOCK[format]))).max_element_error < 4e-6


@pytest.mark.parametrize(("n", "m"), [(7, 1), (33, 5), (16, 8)])
def test_any_number_of_rows_and_tokens(n, m):
    assert_right(int8(Linear("Q5_0", n, 64), m))


@pytest.mark.parametrize("epilogue", ["add", "bias", "bias_add", "gate", "bias_gate"])
def test_epilogues(epilogue):
    assert_right(int8(Linear("Q4_0", 20, 64, epilogue, "gelu"), 2))


@pytest.mark.parametrize(
    ("format", "up", "act"), [("Q4_1", "Q4_1", "silu"), ("Q4_K", "Q6_K", "gelu"), ("Q8_0", "Q5_1", "swiglu_oai")]
)
def test_gate_up(format, up, act):
    assert_right(int8(GateUp(format, 20, 256, up, act)))
    assert_right(int8(GateUp(format, 32, 256, up, act), 4))


@pytest.mark.parametrize("format", MORE)
def test_head_linear(format):
    k = BLOCK[format]
    assert_right(int8(HeadLinear(format, 20, k, heads=3, step=k + 32, row=3 * (k + 32)), 2))


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize(
    ("form", "up", "epilogue", "bias"), [("gate_up", "Q5_0", "none", True), ("down", None, "add", True)]
)
def test_expert_linear(form, up, epilogue, bias, m):
    assert_right(int8(ExpertLinear("Q4_1", 20, 64, 4, 2, form, up, bias=bias, epilogue=epilogue), m))


def test_one_expert_of_one():
    assert_right(int8(ExpertLinear("Q8_0", 16, 32, 1, 1, "down"), 2))


@pytest.mark.parametrize("format", Q8_FORMATS)
def test_embed(format):
    assert_right(int8(Embed(format, 50, 2 * BLOCK[format], 0.5), 3))


@pytest.mark.parametrize(
    ("spec", "m"),
    [
        (Quantise(64, 64), 1),
        (Quantise(96, 100, 1e-5), 1),
        (Quantise(64, 64, 1e-6), 16),
        (Quantise(32, 32, rows=4), 3),
    ],
)
def test_quantise(spec, m):
    assert_right(spec.workload(m))


def test_quants_are_judged():
    """A quant that is one off, and a sum that is not that of the quants, are found."""
    w = Quantise(64, 64).workload()
    case = case_of(w)
    truth = case.truths["out"]
    from kernels.ops.q8 import reference

    words = reference.words_of(case.arrays["x"]).reshape(2, -1)
    right = truth.read(words, slice(0, 2))
    assert np.abs(right - truth.reference).max() < 1e-7
    for word, change in ((0, 1), (9, 1 << 10), (10, 1 << 10)):
        wrong = words.copy()
        wrong[1, word] += change
        assert np.abs(truth.read(wrong, slice(0, 2)) - truth.reference)[1, word] > 1e-5


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (int8(Linear("F16", 16, 64)), "no kernel of linear over int8 for F16"),
        (int8(GateUp("Q4_0", 16, 64, "F32")), "no kernel of gate_up over int8 for F32"),
        (int8(GateUp("Q4_0", 16, 64, "Q4_0", eps=1e-5)), "eps is none"),
        (Linear("Q4_0", 16, 64).workload(1, "q8", "q8"), "gives float32, saw q8 -> q8"),
        (int8(HeadLinear("Q4_0", 16, 32, 2, 40, 96)), "begin with a block of 32 columns"),
        (Quantise(40, 40).workload(), "whole blocks of 32 columns"),
        (Quantise(32, 32).workload(1, "float16"), "quantise takes float32, saw float16"),
    ],
)
def test_workloads_without_kernels(w, message):
    with pytest.raises(KernelError, match=message):
        variants(w)


def test_a_device_without_the_prelude_has_no_kernels():
    w = int8(Linear("Q4_0", 16, 64))
    assert variants(w, "CPU")
    assert not variants(w, "CUDA")
    assert not variants(w, "CPU:X86")
