"""The space of schedules: its children apply, differ, keep to the limits, and compute rightly, however drawn."""

import itertools
import random
import re

import pytest
from support.kernel_runs import MAX_UOPS, case_of, device, run, schedule
from support.random_schedules import counts
from support.renderers import CL, METAL, THREADED
from support.tiers import few_of
from tinygrad.codegen import full_rewrite_to_sink
from tinygrad.codegen.opt.search import get_kernel_actions

from autotune.search.space import Space
from autotune.tinygrad_api.lower import compile_program
from db.records import Opt, Outcome, Schedule, Workload
from kernels.formats import FORMATS, get_format
from kernels.ops.registry import backend
from kernels.serve.defaults import heuristic
from kernels.serve.limits import MAX_THREADS, Limits
from kernels.serve.sink import build
from kernels.tinygrad.schedule import apply_opts

RENDERERS = {"CL": CL, "METAL": METAL, "CPU": THREADED}
NARROW = {"words": 1, "lanes": 1}


def space(w, ren=CL, **limits):
    return Space(w, ren, Limits(**limits) if limits else Limits.of(ren, w))


def start_of(w):
    params = {"lanes": 1} if get_format(w.format).layout == "unquantized" else NARROW
    return schedule("dequant", params)


def drawn(found, rng, depth):
    """The schedules on a random path of up to `depth` opts from a small start."""
    starts = rng.sample(found.starts, len(found.starts))
    sized = (c for s in starts if (c := found.candidate(s)))
    small = next((c for c in sized if c.sizes.body <= 16), None) or found.candidate(starts[0])
    here, path, limit = small.schedule, [], max(32, 2 * small.sizes.body)  # a step of TQ1_0 is 64 weights
    for _ in range(depth):
        # other parameters come last, and are dear: each is a kernel of its own to prepare
        same = itertools.takewhile(lambda c, p=here.params: c.schedule.params == p, found.children(here))
        if not (children := [c for c in same if c.sizes.body <= limit]):
            break
        here = rng.choice(children).schedule
        path.append(here)
    return path


@pytest.mark.parametrize(
    "format", few_of(FORMATS, lambda f: f in ("Q4_0", "Q4_K", "IQ3_S", "F16"), pytest.mark.nightly)
)
@counts(2)
def test_random_schedules_compute_rightly(format, count):
    """On the device under test, against float64. Sizes with many divisors, and some that only padding fits."""
    rng, ren = random.Random(format), device().renderer
    tried = 0
    while tried < count:
        blocks = rng.choice((2, 3, 4))
        k = rng.choice((62, 96, 31 * 16)) if get_format(format).block == 1 else blocks * get_format(format).block
        w = Workload("linear", format, rng.choice((24, 31, 60)), k, rng.choice((1, 3, 4)))
        case = case_of(w, seed=tried)
        path = drawn(Space(w, ren, Limits.of(ren, w)), rng, 4)
        for found in path[-2:][: count - tried]:
            verdict = run(w, found, case)
            assert verdict.outcome is Outcome.OK, f"{w} {found}: {verdict.reason}"
            tried += 1


@pytest.mark.parametrize("w", [Workload("linear", "F16", 31, 31, 3), Workload("linear", "Q8_0", 77, 96, 3)])
def test_padded_outputs_compute_rightly_and_sums_are_never_padded(w):
    ren = device().renderer
    found, start = Space(w, ren, Limits.of(ren, w)), start_of(w)
    padded = [o for c in found.children(start) for o in c.schedule.opts if o.op == "PADTO"]
    assert {o.range for o in padded} == {"1"}
    more = (Opt("LOCAL", None, 8, "1"), Opt("UPCAST", None, 2, "opt1"), Opt("GROUPTOP", None, 0, "2"))
    for opts in ((Opt("UPCAST", None, 8, "1"),), more if ren.has_local else (Opt("THREAD", None, 2, "1"),)):
        verdict = run(w, schedule(start.variant, dict(start.params), (Opt("PADTO", None, 8, "1"), *opts)))
        assert verdict.outcome is Outcome.OK, verdict.reason


@pytest.mark.parametrize("ren", RENDERERS.values(), ids=RENDERERS.keys())
@pytest.mark.parametrize("format", ["Q4_K", "Q8_0", "F16"])
def test_children_are_legal_within_limits_and_differ(ren, format):
    w = Workload("linear", format, 77 if format == "F16" else 96, 512, 3)
    found = space(w, ren)
    for parent in (start_of(w), *(found.seeds[-1:] if format != "Q4_K" else ())):
        children = list(found.children(parent))
        assert len(children) >= 3
        signatures = [c.signature for c in children]
        assert len({found.candidate(parent).signature, *signatures}) == 1 + len(children)
        for c in children:
            assert found.candidate(c.schedule) == c
            assert c.sizes.body <= found.limits.body
            assert c.sizes.threads <= MAX_THREADS
            assert c.sizes.shared_nbytes <= ren.shared_max
            assert all(o.axis is not None for o in c.schedule.opts)


@pytest.mark.parametrize(
    ("ren", "w"),
    [
        (CL, Workload("linear", "Q4_K", 4096, 4096)),
        (CL, Workload("linear", "F16", 77, 576, 32)),
        (METAL, Workload("linear", "Q8_0", 96, 512, 4)),
        (METAL, Workload("linear", "F16", 64, 64, 32, "float16", "float16")),
        (THREADED, Workload("linear", "Q5_0", 4096, 4096)),
        (THREADED, Workload("linear", "F16", 77, 576, 32)),
    ],
    ids=lambda v: f"{v.format}-m{v.m}" if isinstance(v, Workload) else type(v).__name__,
)
def test_a_superset_of_tinygrads_own_actions(ren, w):
    """One step, and two: whatever stock BEAM would try, and our limits allow, is among the children."""
    found = space(w, ren)
    parents = [start_of(w), next(c.schedule for c in found.children(start_of(w)) if c.schedule.opts)]
    compared = 0
    for parent in parents:
        ours = {c.signature for c in found.children(parent)}
        kernel = apply_opts(build(w, schedule(parent.variant, dict(parent.params)), ren), ren, parent.opts)
        for stock in get_kernel_actions(kernel._scheduler, include_0=False).values():
            opt = stock.applied_opts[-1]
            child = Schedule(parent.variant, parent.params, (*parent.opts, Opt(opt.op.name, opt.axis, opt.arg)))
            if candidate := found.candidate(child):
                compared += 1
                assert candidate.signature in ours, opt
    assert compared >= 10


def anonymous(source):
    """Source with its loop variables numbered in order: tinygrad's numbers tell which opt came first."""
    order = list(dict.fromkeys(re.findall(r"Ridx\d+", source)))
    return re.sub(r"Ridx\d+", lambda m: f"loop{order.index(m[0])}", source)


def test_equal_signatures_are_equal_programs_and_different_ones_are_not():
    """Two steps from the start in every order: what commutes must be recognised before it is lowered."""
    w = Workload("linear", "Q8_0", 96, 64, 4)
    found = space(w)
    pairs: dict = {}
    rng = random.Random(2)
    first = [c for c in found.children(start_of(w)) if c.schedule.params == start_of(w).params]
    for parent in first:
        for c in found.children(parent.schedule):
            if c.schedule.params == start_of(w).params:
                pairs.setdefault(c.signature, {})[c.schedule.opts] = c.schedule
    several = [list(same.values()) for same in pairs.values() if len(same) > 1]
    assert len(several) >= 5
    keys = {}
    for same in rng.sample(several, 5):
        compiled = {anonymous(compile_program(build(w, s, CL), CL, max_uops=MAX_UOPS).source) for s in same[:2]}
        assert len(compiled) == 1, same
        keys[compiled.pop()] = same
    assert len(keys) == 5


def test_limits_are_respected():
    w = Workload("linear", "Q8_0", 96, 512, 4)
    loose, tight = space(w), space(w, body=16, threads=8, shared_nbytes=64)
    assert {c.signature for c in tight.children(start_of(w))} < {c.signature for c in loose.children(start_of(w))}
    for c in tight.children(start_of(w)):
        assert c.sizes.body <= 16
        assert c.sizes.threads <= 8
        assert c.sizes.shared_nbytes <= 64


def test_the_shape_is_read_off_the_loops():
    w = Workload("linear", "Q8_0", 96, 512, 4)
    opts = (Opt("GROUPTOP", None, 8, "2"), Opt("LOCAL", None, 4, "1"), Opt("UPCAST", None, 2, "0"))
    shape = space(w).candidate(schedule("dequant", {"words": 2, "lanes": 2}, opts)).sizes
    assert (shape.threads, shape.groups, shape.upcast, shape.unroll, shape.grid) == (32, 8, 2, 1, 2 * 24)
    assert shape.body == 8 * 2  # two words of four products, two tokens
    assert shape.shared_nbytes == 4 * 2 * 2 * 32
    program = compile_program(build(w, schedule("dequant", {"words": 2, "lanes": 2}, opts), CL), CL)
    assert program.shared_nbytes <= shape.shared_nbytes


@pytest.mark.parametrize(
    "bad",
    [
        schedule("dequant", NARROW, (Opt("UPCAST", None, 7, "1"),)),
        schedule("magic", NARROW),
        schedule("dequant", {"words": 5}),
        schedule("warp", {"rows": 1, "warps": 4, "words": 4, "staged": 0}),
    ],
    ids=["opt", "variant", "params", "variant of another device"],
)
def test_no_candidate(bad):
    w = Workload("linear", "Q8_0", 64, 64)
    assert space(w).candidate(bad) is None


def test_not_tuned_has_no_children():
    w = Workload("linear", "Q8_0", 64, 64)
    assert list(space(w).children(schedule("dequant", NARROW, None))) == []


def test_the_warp_variant_moves_through_its_parameters_only():
    w = Workload("linear", "Q4_K", 4096, 4096)
    found = space(w, METAL)
    start = schedule("warp", {"rows": 2, "warps": 4, "words": 4, "staged": 0})
    children = [c.schedule for c in found.children(start)]
    assert len(children) == 7  # rows, warps and words, up and down; x staged
    assert {(c.variant, c.opts) for c in children} == {("warp", ())}
    assert "warp" in {s.variant for s in found.seeds}


@pytest.mark.parametrize("ren", RENDERERS.values(), ids=RENDERERS.keys())
@pytest.mark.parametrize("format", ["Q4_0", "F16"])
def test_the_heuristics_opts_spelled_out_are_its_program(ren, format):
    w = Workload("linear", format, 96, 96, 2)
    for left_to_it in heuristic(w, backend(ren)):
        explicit = space(w, ren).explicit(left_to_it)
        assert explicit.opts is not None
        assert (explicit.variant, explicit.params) == (left_to_it.variant, left_to_it.params)
        by_heuristic, by_us = (full_rewrite_to_sink(build(w, s, ren), ren) for s in (left_to_it, explicit))
        assert by_us.replace(arg=None).key == by_heuristic.replace(arg=None).key
        assert space(w, ren).explicit(explicit) is explicit
