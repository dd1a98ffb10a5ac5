"""Kernels over quantised activations and tiled weights, against the float64 reference."""

from dataclasses import replace

import numpy as np
import pytest
from support.int8_workloads import int8
from support.kernel_runs import arrays, backend, case_of, compiled, device, run
from support.tiers import few_of

from db.records import Outcome, Schedule
from kernels.formats import get_format
from kernels.ops.embed.spec import Embed
from kernels.ops.experts.spec import ExpertLinear
from kernels.ops.linear.spec import GateUp, HeadLinear, Linear
from kernels.ops.q8.spec import Q8_FORMATS, Quantise
from kernels.ops.registry import KernelError, variants
from kernels.serve.defaults import defaults

BLOCK = {format: get_format(format).block for format in Q8_FORMATS}
MORE = ("Q4_1", "Q6_K")


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
    ("format", "up", "act"), [("Q4_1", "Q4_1", "silu"), ("Q4_K", "Q6_K", "gelu"), ("Q8_0", "Q5_1", "silu")]
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
    ("form", "up", "act", "epilogue"), [("gate_up", "Q5_0", "swiglu_oai", "none"), ("down", None, "silu", "add")]
)
def test_expert_linear(form, up, act, epilogue, m):
    assert_right(int8(ExpertLinear("Q4_1", 20, 64, 4, 2, form, up, act, True, epilogue), m))


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


def outputs(w, schedule, case):
    """The words of `out` after a launch, as float32."""
    buffers = [device().upload(a) for a in arrays(w, case)]
    device().load(compiled(w, schedule), {})(buffers)
    whole = device().read(buffers[0])
    return np.frombuffer(whole, np.uint8)[: case.truths["out"].m * case.truths["out"].n * 4].view(np.float32)


@pytest.mark.parametrize("format", few_of(Q8_FORMATS, lambda f: f in ("Q4_1", "Q6_K"), pytest.mark.nightly))
def test_a_result_does_not_depend_on_the_tokens_beside_it(format):
    """Bit for bit: what a prompt leaves is what its tokens leave one by one."""
    spec = GateUp(format, 32, 2 * BLOCK[format], format)
    case = case_of(int8(spec, 8))
    together = [outputs(int8(spec, 8), s, case) for s in choices(int8(spec, 8), slices=1)]
    assert len(together) == 4
    one = int8(spec)
    words = case.arrays["x"]
    alone = [
        outputs(
            one, choices(one, slices=1)[0], replace(case, arrays={**case.arrays, "x": words[i : i + 1]}, truths=truth)
        )
        for i, truth in ((i, case_of(one).truths) for i in (0, 7))
    ]
    for out in together:
        np.testing.assert_array_equal(out.reshape(8, 32)[[0, 7]], np.stack(alone))


def choices(w, **params):
    """The schedules with these parameters."""
    found = [p for v in variants(w, backend()).values() for p in v.params(w) if params.items() <= p.items()]
    return [Schedule("tiles", tuple(sorted(p.items())), ()) for p in found]


@pytest.mark.parametrize("format", few_of(Q8_FORMATS, lambda f: f == "Q4_K", pytest.mark.nightly))
def test_any_parameters(format):
    w = int8(Linear(format, 64, 2 * BLOCK[format], "add"), 4)
    case = case_of(w)
    for schedule in choices(w)[:: 4 if format == "Q4_K" else 1]:
        assert run(w, schedule, case).outcome is Outcome.OK, schedule


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_no_numbers(bad):
    """A block with one has the scale NaN and quants of 0, and with RMSNorm NaN is in every block of its row."""
    for eps in (None, 1e-5):
        w = Quantise(64, 64, eps).workload(2)
        case = case_of(w)
        case.arrays["x"][0, 5] = bad
        words = outputs(w, defaults(w, backend())[0], case).reshape(4, 11)
        wrong = 2 if eps and np.isnan(bad) else 1
        assert np.isnan(words[:wrong, 8:]).all()
        assert (words[:wrong, :8].copy().view(np.int32) == 0).all()
        assert np.isfinite(words[wrong:, 8:]).all()


def test_a_row_of_no_numbers_spoils_no_other():
    w = int8(Linear("Q4_K", 16, 256), 2)
    case = case_of(w)
    case.arrays["x"].view(np.float32)[0, 3, 8:] = np.nan
    out = outputs(w, defaults(w, backend())[0], case).reshape(2, 16)
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()


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
