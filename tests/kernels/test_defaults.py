"""Hand-chosen schedules: buildable in name, first choice first, and always something that applies."""

import pytest
from support.kernel_runs import backend, device

from db.records import Workload
from kernels.formats import FORMATS, get_format
from kernels.ops.registry import variants
from kernels.serve import defaults
from kernels.serve.sink import applies, build

BACKENDS = ("CPU", "CUDA", "NV", "METAL", "CL", "AMD", "SOMETHING:3")
SHAPES = ((1, 1, 1), (77, 3, 1), (64, 16, 4), (9, 1, 512))


def workload(format, n, blocks, m):
    return Workload("linear", format, n, blocks * get_format(format).block, m)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_choice_is_of_a_variant_and_params_that_exist(format, backend):
    for shape in SHAPES:
        w = workload(format, *shape)
        found = defaults.defaults(w, backend)
        assert len(set(found)) == len(found)
        for s in (*found, *defaults.heuristic(w, backend), defaults.untuned(w)):
            assert dict(s.params) in variants(w, backend)[s.variant].params(w)
        assert found[-1].opts == ()  # no opts apply anywhere
        if w.m > 8:  # many tokens on a GPU are for its tensor cores
            assert (found[0].variant == "tc") == (backend in ("CUDA", "NV", "METAL"))
        assert all(s.opts is None for s in (*defaults.heuristic(w, backend), defaults.untuned(w)))


@pytest.mark.parametrize("format", FORMATS)
def test_the_last_choice_applies_here(format):
    for shape in SHAPES:
        w = workload(format, *shape)
        assert applies(w, defaults.defaults(w, backend())[-1], backend())
        assert build(w, defaults.untuned(w), device().renderer).arg.opts_to_apply is None


def test_a_warp_a_row_first_on_nvidia_for_few_tokens_only():
    for format, blocks in (("Q4_K", 4), ("F16", 64)):
        few, many = (defaults.defaults(workload(format, 512, blocks, m), "CUDA") for m in (1, 512))
        assert few[0].variant == "warp"
        assert "warp" not in {s.variant for s in many}
    # a router's rows are too few for that
    assert [s.variant for s in defaults.defaults(workload("F32", 64, 64, 1), "CUDA")][:2] == ["dequant", "warp"]


@pytest.mark.parametrize(("k", "staged"), [(4096, {1}), (14336, {0})])
def test_x_is_staged_by_default_on_nvidia_where_it_fits(k, staged):
    w = workload("Q4_K", 4096, k // 256, 1)
    assert {dict(s.params)["staged"] for s in defaults.defaults(w, "CUDA") if s.variant == "warp"} == staged
    assert {dict(s.params)["staged"] for s in defaults.defaults(w, "METAL") if s.variant == "warp"} == {0}


def test_the_heuristic_is_judged_on_every_plainly_written_variant():
    assert [s.variant for s in defaults.heuristic(workload("Q4_K", 8, 1, 1), "CUDA")] == ["dequant", "factored"]
    assert [s.variant for s in defaults.heuristic(workload("F32", 8, 64, 1), "CPU")] == ["dequant"]
