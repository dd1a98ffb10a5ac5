"""The `linear` kernels against the float64 reference: every format, variant and kind of parameters, at odd shapes."""

import itertools

import numpy as np
import pytest
from support.kernel_runs import backend, linear_case, run, schedule

from db.records import Outcome, Workload
from kernels import defaults, formats, reference
from kernels.registry import variants
from kernels.sink import applies

FORMATS = tuple(formats.FORMATS)
BLOCKED = tuple(f for f in FORMATS if formats.get_format(f).layout != "plain")
HERE = tuple((f, v) for f in FORMATS for v in (("dequant", "factored") if f in BLOCKED else ("dequant",)))
# rows, columns in blocks (columns of a plain format), tokens: nothing that a power of two divides by chance
SHAPES = ((77, 3, 1), (3, 1, 5), (1, 2, 3), (19, 5, 32))
PLAIN_K = {1: 1, 2: 65, 3: 576, 5: 65}


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


@pytest.mark.parametrize(("format", "variant"), HERE)
def test_every_kind_of_parameters_without_opts(format, variant):
    shapes = itertools.cycle(SHAPES)
    count = 2 if formats.get_format(format).layout == "kquant" else 3  # these take a second each to compile
    for params in spread(variants(workload(format, *SHAPES[0]))[variant].params(workload(format, *SHAPES[0])), count):
        w = workload(format, *next(shapes))
        if params in variants(w)[variant].params(w):
            # the tolerance allows 1e-5; a float32 sum of so few products has no reason to be that far off
            assert assert_right(w, schedule(variant, params)).max_element_error < 2e-6


@pytest.mark.parametrize("format", FORMATS)
def test_under_the_heuristic(format):
    w = workload(format, 77, 2, 1)
    for choice in defaults.heuristic(w, backend()):
        assert choice.opts is None
        assert_right(w, choice)


@pytest.mark.parametrize("format", FORMATS)
def test_float16_activations(format):
    w = workload(format, 21, 1, 2, "float16")
    assert_right(w, defaults.untuned(w))


@pytest.mark.parametrize(("format", "m"), list(zip(FORMATS, itertools.cycle((3, 1)))))
def test_under_the_first_default_that_applies(format, m):
    w = workload(format, 66, 2, m, "float16" if m == 3 else "float32")
    assert_right(w, next(s for s in defaults.defaults(w, backend()) if applies(w, s, backend())))


def test_more_rows_than_16_bits_can_count():
    assert_right(Workload("linear", "Q8_0", 49153, 32), schedule("factored", {"words": 8, "lanes": 8}))


EDGES = np.array([0x0000, 0x8000, 0x0001, 0x03FF, 0x7BFF, 0xFBFF, 0x3C00], np.uint16)  # float16 bit patterns


@pytest.mark.parametrize(("format", "variant"), [c for c in HERE if c[0] in BLOCKED])
def test_scales_of_zero_denormal_and_largest(format, variant):
    fmt, n = formats.get_format(format), 21
    w = Workload("linear", format, n, 2 * fmt.block)
    raw = reference.random_blocks(format, n, w.k, np.random.default_rng(5)).reshape(n, 2, fmt.nbytes)
    for i, plane in enumerate(p for p in fmt.planes if p.name in ("d", "dm")):
        for half in range(plane.items):
            bits = np.roll(EDGES, i + 2 * half)[np.arange(n) % len(EDGES)]
            at = plane.start + 2 * half
            raw[:, :, at : at + 2] = bits.view(np.uint8).reshape(n, 1, 2)
    verdict = assert_right(w, schedule(variant, {"words": 2, "lanes": 2}), linear_case(w, raw.reshape(n, -1)))
    assert verdict.error <= 1e-5


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
