"""Opts by loop name: on the loop they name at every shape, repeatable, and refused where they do not apply."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kernel_runs import schedule
from support.renderers import CL, METAL, THREADED
from support.tiers import few_of
from tinygrad.codegen.opt import KernelOptError
from tinygrad.uop.ops import AxisType

from autotune.search.space import Space
from autotune.tinygrad_api.lower import compile_program
from db.codec import OPT_OPS
from db.records import Opt, Workload
from kernels.formats import get_format
from kernels.ops.registry import body
from kernels.serve.limits import Limits
from kernels.serve.sink import build, placeholders
from kernels.tinygrad.schedule import ScheduledKernel, ScheduleError, apply_opts

NARROW = {"words": 1, "lanes": 1}


def sink(w, variant="dequant", params=NARROW):
    return body(w, schedule(variant, params), placeholders(w), "CL")


def kernel(*opts, m=1, n=96, blocks=4, ren=CL, format="Q4_K"):
    k = blocks * get_format(format).block
    return apply_opts(sink(Workload("linear", format, n, k, m)), ren, opts)


def axes(kernel, *types):
    return {(a.root, a.size, a.stride) for a in kernel.axes if a.type in types}


@pytest.mark.parametrize("m", [1, 4])
@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize(
    ("opt", "type", "expected"),
    [
        (Opt("UPCAST", None, 4, "1"), AxisType.UPCAST, ("1", 4, 1)),
        (Opt("LOCAL", None, 8, "1"), AxisType.LOCAL, ("1", 8, 1)),
        (Opt("UNROLL", None, 2, "3.1"), AxisType.UNROLL, ("3.1", 2, 1)),
        (Opt("UNROLL", None, 8, "4"), AxisType.UNROLL, ("4", 8, 1)),
        (Opt("GROUP", None, 4, "4"), AxisType.GROUP_REDUCE, ("4", 4, 1)),
        (Opt("GROUPTOP", None, 4, "4"), AxisType.GROUP_REDUCE, ("4", 4, 2)),
    ],
)
def test_an_opt_lands_on_the_loop_it_names_whatever_collapsed(opt, type, expected, m, blocks):
    """A token or block loop of size 1 is gone, so every axis after it has another index."""
    assert axes(kernel(opt, m=m, blocks=blocks), type) == {expected}


@pytest.mark.parametrize("m", [1, 4])
def test_the_index_is_recorded_beside_the_name(m):
    done = kernel(Opt("UPCAST", None, 4, "1"), Opt("GROUPTOP", None, 2, "2"), m=m)
    assert [(o.axis, o.range) for o in done.opts] == [(m > 1, "1"), (0, "2")]
    assert [o.axis for o in done.tinygrad_opts] == [int(m > 1), 0]


def test_an_opt_can_name_the_loop_that_another_made():
    done = kernel(Opt("LOCAL", None, 8, "1"), Opt("UPCAST", None, 2, "opt0"), Opt("UPCAST", None, 3, "1"))
    assert axes(done, AxisType.UPCAST) == {("1", 2, 1), ("1", 3, 8)}
    assert axes(done, AxisType.LOCAL) == {("1", 4, 2)}
    assert axes(done, AxisType.GLOBAL) == {("1", 4, 24)}


def test_the_whole_loop():
    assert axes(kernel(Opt("UNROLL", None, 0, "4")), AxisType.UNROLL) == {("4", 8, 1)}


def test_a_padded_loop_keeps_its_name():
    done = kernel(Opt("PADTO", None, 32, "1"), Opt("LOCAL", None, 32, "1"), n=77)
    assert axes(done, AxisType.LOCAL) == {("1", 32, 1)}
    assert axes(done, AxisType.GLOBAL) == {("1", 3, 32)}


def test_after_a_swap_names_stay_with_their_loops():
    done = kernel(Opt("SWAP", 0, 1, "0"), Opt("LOCAL", None, 8, "1"), Opt("LOCAL", None, 2, "0"), m=4)
    assert axes(done, AxisType.LOCAL) == {("1", 8, 1), ("0", 2, 1)}
    assert axes(done, AxisType.GLOBAL) == {("1", 12, 8), ("0", 2, 2)}


def test_threads_take_the_outer_part():
    assert axes(kernel(Opt("THREAD", None, 2, "1"), ren=THREADED), AxisType.THREAD) == {("1", 2, 48)}


def test_a_workgroup_that_tinygrad_would_choose_by_timing_is_refused():
    with pytest.raises(ScheduleError, match="workgroup"):
        kernel(Opt("NOLOCALS"))


def test_without_a_name_the_index_decides():
    assert axes(kernel(Opt("UPCAST", 0, 4)), AxisType.UPCAST) == {("1", 4, 1)}


@pytest.mark.parametrize(
    "opts",
    [
        (Opt("UPCAST", 0, 4, "0"),),  # m=1: there is no token loop, and the index would take the rows
        (Opt("UPCAST", 0, 4, "7"),),
        (Opt("UPCAST", 0, 4, "opt0"),),
        (Opt("UPCAST", None, 7, "1"),),
        (Opt("UPCAST", None, 4, "2"),),
        (Opt("UNROLL", None, 4, "1"),),
        (Opt("UNROLL", None, 3, "4"),),
        (Opt("UNROLL", None, 2, "3"),),  # tinygrad splits the chunk loop of Q4_K into 3.0 and 3.1
        (Opt("GROUP", None, 4, "1"),),
        (Opt("GROUP", None, 3, "4"),),
        (Opt("GROUPTOP", None, 4, "9"),),
        (Opt("LOCAL", None, 5, "1"),),
        (Opt("LOCAL", None, 4, "4"),),
        (Opt("THREAD", None, 2, "1"),),  # OpenCL has none
        (Opt("TC", 0, (-1, 0, 1)),),
        (Opt("TC", 0, None),),
        (Opt("TC", 0, (-1, 0)),),
        (Opt("SWAP", 0, 9, "1"),),
        (Opt("SWAP", 0, None, "1"),),
        (Opt("UPCAST", 40, 4),),
        (Opt("UPCAST", None, None, "1"),),
        (Opt("UPCAST", None, 4),),
        (Opt("UPCAST", None, (4, 4), "1"),),
        (Opt("UPCAST", None, 1, "0"),),  # splits nothing, and breaks tinygrad's rewriting on some renderers
        (Opt("PADTO", None, 0, "1"),),
        (Opt("PADTO", None, 32, "2"),),
        (Opt("UPCAST", None, 2, "1"), Opt("UPCAST", None, 4, "opt5")),
    ],
    ids=lambda opts: " ".join(f"{o.op}-{o.axis}-{o.arg}-{o.range}" for o in opts),
)
def test_an_opt_that_does_not_apply(opts):
    with pytest.raises(ScheduleError, match=opts[-1].op):
        kernel(*opts)


sizes = st.none() | st.integers(0, 70) | st.lists(st.integers(-1, 9), max_size=4).map(tuple)
loops = st.sampled_from([None, "-1", "0", "1", "2", "3", "3.0", "3.1", "4", "opt0", "opt1", "opt9"])
any_opt = st.builds(Opt, st.sampled_from(sorted(OPT_OPS)), st.none() | st.integers(0, 64), sizes, loops)


@given(st.lists(any_opt, min_size=1, max_size=4), st.sampled_from([CL, METAL, THREADED]))
@settings(deadline=None, max_examples=150)
def test_whatever_a_store_may_hold_applies_or_is_refused(opts, ren):
    try:
        done = kernel(*opts, m=2, ren=ren)
    except ScheduleError:
        return
    assert len(done.opts) == len(opts)


@pytest.mark.parametrize("before", [(), (Opt("GROUP", None, 2, "2"),), (Opt("UNROLL", None, 2, "2"),)], ids=str)
def test_a_loop_that_is_summed_is_never_padded(before):
    """tinygrad 0.14 has no objection, and then computes F16 with k=31, PADTO 32, UNROLL 2 wrongly on every device: what
    pads one of the unrolled steps skips them all. Grouped, the threads of the padding leave their slot unwritten."""
    for loop in ("2", "opt0"):
        with pytest.raises(ScheduleError, match="PADTO"):
            kernel(*before, Opt("PADTO", None, 32, loop), format="Q8_0", blocks=30)


def test_a_refusal_is_a_value_error_and_not_tinygrads():
    assert issubclass(ScheduleError, ValueError)
    assert not issubclass(ScheduleError, KernelOptError)


def test_a_copy_leaves_the_original_alone():
    original = kernel(Opt("LOCAL", None, 8, "1"))
    copy = original.copy()
    copy.apply(Opt("UPCAST", None, 2, "opt0"))
    copy.apply(Opt("UNROLL", None, 2, "4"))
    assert len(original.opts) == 1
    assert axes(original, AxisType.UPCAST, AxisType.UNROLL) == set()
    original.apply(Opt("UPCAST", None, 4, "1"))
    assert axes(original, AxisType.UPCAST) == {("1", 4, 8)}


@pytest.mark.parametrize("ren", few_of([CL, METAL, THREADED], lambda ren: ren is THREADED), ids=["CL", "METAL", "CPU"])
def test_stored_opts_give_the_identical_kernel_again(ren):
    """What a search records is what a model later builds, by name and by index alike."""
    rng = random.Random(4)
    for format, m in (("Q4_K", 1), ("Q8_0", 3), ("F16", 2)):
        w = Workload("linear", format, 96, 512, m)
        space = Space(w, ren, Limits.of(ren, w))
        found = next(s for s in space.starts if dict(s.params).get("words", 1) == dict(s.params)["lanes"] == 1)
        for _ in range(4):
            children = [c for c in space.children(found) if c.schedule.params == found.params]
            if not children:
                break
            found = rng.choice(children).schedule
        assert found.opts
        stored = build(w, found, ren)
        again = apply_opts(body(w, found, placeholders(w), ren.target.device), ren, found.opts)
        by_index = ScheduledKernel(body(w, found, placeholders(w), ren.target.device), ren)
        for opt in found.opts:
            by_index.apply(Opt(opt.op, opt.axis, opt.arg))
        assert again.opts == found.opts
        assert stored.arg.opts_to_apply == again.tinygrad_opts == by_index.tinygrad_opts
        assert again.axes == by_index.axes


def test_the_same_opts_compile_to_the_same_program():
    w = Workload("linear", "Q4_0", 96, 128, 2)
    opts = (Opt("LOCAL", None, 8, "1"), Opt("UPCAST", None, 2, "0"), Opt("UNROLL", None, 4, "4"))
    first, second = (build(w, schedule("factored", NARROW, opts), CL) for _ in range(2))
    assert first.key == second.key
    assert compile_program(first, CL).key == compile_program(second, CL).key


def test_no_padding_where_the_index_of_a_load_is_loaded_too():
    """Formats with tables: tinygrad 0.14 loads the quants of padded rows from past the end of the weight."""
    pad = Opt("PADTO", None, 8, "1")
    kernel(pad, n=77, format="Q4_K")
    kernel(Opt("PADTO", None, 8, "0"), n=77, m=3, format="IQ3_S")  # a token pads nothing that is looked up
    with pytest.raises(ScheduleError, match="an index that is itself loaded"):
        kernel(pad, n=77, format="IQ3_S")
