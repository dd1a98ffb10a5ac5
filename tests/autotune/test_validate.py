"""Verdicts on hand-made outputs, and the inputs that outputs are judged by."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.trial.validate import CANARY_NBYTES, Truth, ValidateError, decode, judge, poisoned
from db.records import Outcome, Workload
from kernels.formats import reference
from kernels.ops.case import InputsError
from kernels.ops.linear.reference import DISTINCT_ROWS
from kernels.ops.references import make_case
from kernels.ops.registry import operands

DTYPES = ["float32", "float16", "bfloat16"]


def truth_of(reference, w_norms=None):
    reference = np.asarray(reference, np.float64)
    m, n = reference.shape
    return Truth(reference, np.ones(m), np.ones(n) if w_norms is None else np.asarray(w_norms, np.float64), n)


def encode(values, dtype):
    if dtype == "bfloat16":  # round to nearest even
        bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.uint8)
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(dtype).view(np.uint8)


def written(values, dtype="float32", damage=None):
    """The buffer after a kernel has stored `values` over the poison."""
    data = poisoned(np.size(values), dtype)
    body = encode(np.asarray(values).reshape(-1), dtype)
    data[: body.size] = body
    if damage is not None:
        data[body.size + damage] ^= 1
    return data


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (4, 1021)])
def test_the_exact_result_rounded_once_is_right(dtype, shape):
    ref = np.random.default_rng(0).standard_normal(shape)
    verdict = judge(
        written(ref, dtype), dtype, truth_of(ref), {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    )
    assert verdict.outcome is Outcome.OK, verdict
    assert verdict.reason == ""


@pytest.mark.parametrize("dtype", DTYPES)
def test_never_written_is_not_a_computed_nan(dtype):
    ref = np.ones((2, 8))
    assert "16 of 16 elements never written" in judge(poisoned(16, dtype), dtype, truth_of(ref), 1.0).reason
    nan = judge(written(np.full((2, 8), np.nan), dtype), dtype, truth_of(ref), 1.0)
    assert (nan.outcome, nan.error) == (Outcome.WRONG_RESULT, None)
    assert "NaN" in nan.reason


@pytest.mark.parametrize("at", [0, 1, 63, CANARY_NBYTES - 1])
def test_a_write_past_the_end_is_wrong_even_if_the_result_is_right(at):
    ref = np.ones((2, 8))
    verdict = judge(written(ref, damage=at), "float32", truth_of(ref), 1.0)
    assert verdict.outcome is Outcome.WRONG_RESULT
    assert "past the output's end" in verdict.reason


def test_one_element_that_drowns_in_the_norm_is_found():
    ref = np.full((1, 10_000), 1000.0)
    ref[0, 77] = 1e-3
    out = ref.copy()
    out[0, 77] = 2e-3
    norms = np.full(10_000, 1000.0)
    norms[77] = 1e-3  # a row of tiny scales
    verdict = judge(written(out), "float32", truth_of(ref, norms), 1e-5)
    assert verdict.outcome is Outcome.WRONG_RESULT
    assert verdict.error < 1e-5
    assert "(0, 77)" in verdict.reason


@pytest.mark.parametrize(("off", "outcome"), [(9e-4, Outcome.OK), (1.1e-3, Outcome.WRONG_RESULT)])
def test_an_element_of_an_outlier_may_be_off_by_a_rounding_and_no_product_left_out(off, outcome):
    ref = np.ones((1, 1_000_000))
    out = ref.copy()
    out[0, 5] += off  # more than eight tolerances; of the whole it is less than one
    assert judge(written(out), "float32", truth_of(ref), 1e-5).outcome is outcome


def test_a_row_of_zero_scales_must_be_zero():
    ref, norms = np.array([[1.0, 0.0]]), [1.0, 0.0]
    assert judge(written(ref), "float32", truth_of(ref, norms), 1e-5).outcome is Outcome.OK
    assert judge(written([[1.0, 1e-30]]), "float32", truth_of(ref, norms), 1e-5).outcome is Outcome.WRONG_RESULT


def test_the_output_types_own_limits_are_no_error():
    ref = np.array([[1e6, -1e6, 3e-8, 1.0]])  # too large for a half, and below its smallest denormal
    assert judge(written(ref, "float16"), "float16", truth_of(ref, [1e6, 1e6, 3e-8, 1.0]), 1e-3).outcome is Outcome.OK
    wrong_sign = np.array([[-1e6, -1e6, 3e-8, 1.0]])
    assert judge(written(wrong_sign, "float16"), "float16", truth_of(ref), 1e-3).outcome is Outcome.WRONG_RESULT
    assert judge(written([[np.inf]]), "float32", truth_of([[1.0]]), 1.0).outcome is Outcome.WRONG_RESULT


def test_slabs_find_the_worst_of_all_tokens():
    ref = np.ones((2, 2_200_000))
    out = ref.copy()
    out[1, 2_199_999] = 1.5
    assert "(1, 2199999)" in judge(written(out), "float32", truth_of(ref), 1e-3).reason


@given(st.integers(1, 6), st.integers(1, 40), st.floats(1e-6, 1.0), st.integers(0, 2**32 - 1))
def test_the_error_is_the_relative_norm(m, n, size, seed):
    rng = np.random.default_rng(seed)
    ref = rng.standard_normal((m, n)) + 3
    out = (ref + size * rng.standard_normal((m, n))).astype(np.float32).astype(np.float64)
    verdict = judge(written(out), "float32", truth_of(ref), 1e9)
    assert verdict.error == pytest.approx(np.linalg.norm(out - ref) / np.linalg.norm(ref))
    assert (judge(written(out), "float32", truth_of(ref), verdict.error * 0.99).outcome) is Outcome.WRONG_RESULT


@pytest.mark.parametrize(
    ("data", "dtype", "match"),
    [
        (np.zeros(3, np.uint8), "float32", "no float32 output of 2 elements"),
        (np.zeros(2, np.float32), "float32", "bytes of float32"),
        (poisoned(2, "float32"), "float16", "no float16 output"),
        (poisoned(2, "float32"), "int8", "no poison"),
    ],
)
def test_data_that_does_not_belong_is_refused(data, dtype, match):
    with pytest.raises(ValidateError, match=match):
        judge(data, dtype, truth_of([[1.0, 2.0]]), 1.0)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "F16", "BF16", "F32"]),
    st.sampled_from([1, 17, DISTINCT_ROWS, DISTINCT_ROWS + 1, 2100]),
    st.integers(1, 3),
    st.sampled_from(["float32", "float16"]),
)
def test_inputs_agree_with_the_reference(format, n, m, x_dtype):
    w = Workload("linear", format, n, 256, m, x_dtype)
    a, b, c = make_case(w), make_case(w), make_case(w, 1)
    assert all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)
    x, planes = a.arrays["x"], [a.arrays[o.name] for o in operands(w) if o.role == "weight"]
    assert not np.array_equal(x, c.arrays["x"])
    assert x.shape == (m, 256)
    assert x.dtype == x_dtype
    rows = np.concatenate([p.reshape(n, -1, p.shape[-1]).view(np.uint8) for p in planes], axis=-1).reshape(n, -1)
    expected = reference.linear(rows, format, (n, 256), x)
    got, scale = a.truths["out"].rows(0, m)
    np.testing.assert_allclose(got, expected)
    assert scale.shape == (m, n)
    assert a.weight_nbytes(operands(w)) == rows.nbytes


@pytest.mark.parametrize("change", [{"op": "sort"}, {"x_dtype": "int8"}, {"k": 33}])
def test_a_workload_without_inputs_is_refused(change):
    w = Workload(**{"op": "linear", "format": "Q4_0", "n": 4, "k": 32, **change})
    with pytest.raises(ValueError, match=r"\S"):
        make_case(w)
    assert issubclass(InputsError, ValueError)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_update_is_judged_where_it_should_write_and_where_it_should_not(dtype):
    """A cache of 8192 rows of which the launch writes row 5000."""
    rng = np.random.default_rng(0)
    old = written(rng.standard_normal((8192, 8)), dtype)
    size = old.size - CANARY_NBYTES
    content = decode(old[:size].view(np.uint16 if dtype != "float32" else np.uint32), dtype).reshape(8192, 8)
    ref = content.copy()
    ref[5000] = rng.standard_normal(8)
    tolerance = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    right = written(ref, dtype)
    assert judge(right, dtype, truth_of(ref), tolerance, old).outcome is Outcome.OK
    assert judge(old, dtype, truth_of(ref), tolerance, old).outcome is Outcome.WRONG_RESULT
    stray = right.copy()
    stray[size // 2 : size // 2 + 4] ^= 0x40
    assert judge(stray, dtype, truth_of(ref), tolerance, old).outcome is Outcome.WRONG_RESULT
    assert judge(right, dtype, truth_of(content), tolerance, old).outcome is Outcome.WRONG_RESULT
