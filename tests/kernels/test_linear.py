"""The `linear` kernels against the float64 reference: every format, variant and kind of parameters, at odd shapes."""

import itertools

import numpy as np
import pytest
from support.kernel_runs import backend, linear_case, run, schedule
from support.tiers import few_of

from db.records import Outcome, Workload
from kernels import formats
from kernels.formats import reference
from kernels.ops.registry import variants
from kernels.serve import defaults
from kernels.serve.sink import applies

FORMATS = tuple(formats.FORMATS)
BLOCKED = tuple(f for f in FORMATS if formats.get_format(f).layout != "unquantized")
HERE = tuple((f, v) for f in FORMATS for v in (("dequant", "factored") if f in BLOCKED else ("dequant",)))
# rows, columns in blocks (columns of a plain format), tokens: nothing that a power of two divides by chance
SHAPES = ((77, 3, 1), (3, 1, 5), (1, 2, 3), (19, 5, 32))
PLAIN_K = {1: 1, 2: 65, 3: 576, 5: 65}
# these take every kind of parameters, the others a kind each, by turns: a kernel takes half a second to compile
TYPICAL = ("Q5_0", "Q4_K", "IQ3_S", "BF16")


def workload(format, n, blocks, m, dtype="float32"):
    block = formats.get_format(format).block
    return Workload("linear", format, n, PLAIN_K[blocks] if block == 1 else blocks * block, m, dtype, dtype)


def spread(choices, count):
    """`count` of the choices from first to last, fewer if there are fewer."""
    at = np.unique(np.linspace(0, len(choices) - 1, count).astype(int))
    return [choices[i] for i in at]


def assert_right(w, schedule, ops=None):
    verdict = run(w, schedule, ops)
    assert verdict.outcome is Outcome.OK, f"{w} {schedule}: {verdict.reason}"
    return verdict


def all_params(format, variant):
    w = workload(format, *SHAPES[0])
    return variants(w)[variant].params(w)


@pytest.mark.parametrize(("format", "variant"), [c for c in HERE if c[0] in TYPICAL])
def test_every_kind_of_parameters_without_opts(format, variant):
    shapes = itertools.cycle(SHAPES)
    for params in spread(all_params(format, variant), 3):
        w = workload(format, *next(shapes))
        if params in variants(w)[variant].params(w):
            # the tolerance allows 1e-5; a float32 sum of so few products has no reason to be that far off
            assert assert_right(w, schedule(variant, params)).max_element_error < 4e-6


@pytest.mark.parametrize("format", few_of(FORMATS, lambda f: f in ("Q8_0", "Q5_0", "Q4_K", "F16"), pytest.mark.nightly))
def test_under_the_heuristic(format):
    choices = defaults.heuristic(w := workload(format, 77, 2, 1), backend())
    for choice in choices if format in TYPICAL else choices[:1]:
        assert choice.opts is None
        assert_right(w, choice)


@pytest.mark.parametrize("format", [*TYPICAL, "Q4_0", "MXFP4", "F16"])
def test_float16_activations(format):
    w = workload(format, 21, 1, 2, "float16")
    assert_right(w, defaults.untuned(w))


@pytest.mark.parametrize(
    "format", few_of(FORMATS, lambda f: f in (*TYPICAL, "Q4_0", "Q8_0", "Q6_K"), pytest.mark.nightly)
)
def test_under_the_first_default_that_applies(format):
    m = 1 if format in TYPICAL else 3
    w = workload(format, 66, 2, m, "float16" if m == 3 else "float32")
    assert_right(w, next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend())))


def test_more_rows_than_16_bits_can_count():
    assert_right(Workload("linear", "Q8_0", 49153, 32), schedule("factored", {"words": 8, "lanes": 8}))


@pytest.mark.parametrize(
    ("format", "variant"), few_of([c for c in HERE if c[0] in BLOCKED], lambda c: c[0] in TYPICAL, pytest.mark.nightly)
)
def test_scales_of_zero_denormal_and_largest(format, variant):
    """And every format under parameters of its own, without opts."""
    choices = all_params(format, variant)
    params = choices[(7 * HERE.index((format, variant)) + 3) % len(choices)]
    w = Workload("linear", format, 21, 3 * formats.get_format(format).block)
    raw = reference.edge_blocks(format, w.n, w.k, np.random.default_rng(5))
    verdict = assert_right(w, schedule(variant, params), linear_case(w, raw))
    assert verdict.error <= 1e-5
    assert verdict.max_element_error < 4e-6


@pytest.mark.parametrize(
    ("format", "tiny", "huge"), [("F16", 6e-8, 65504.0), ("BF16", 1e-30, 1e30), ("F32", 1e-30, 1e30)]
)
def test_plain_weights_of_zero_tiny_and_huge(format, tiny, huge):
    from gguf import GGMLQuantizationType, quants

    values = np.random.default_rng(1).uniform(0.5, 1, (9, 65)).astype(np.float32)
    values *= np.repeat([0.0, tiny, huge], 3).astype(np.float32)[:, None]
    raw = quants.quantize(values, GGMLQuantizationType[format]).view(np.uint8).reshape(9, -1)
    w = Workload("linear", format, 9, 65)
    assert_right(w, schedule("dequant", {"lanes": 1}), linear_case(w, raw))
