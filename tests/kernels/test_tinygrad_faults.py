"""What tinygrad 0.14 does that this project works around.

A test here fails once tinygrad is fixed: the workaround that docs/upgrading-tinygrad.md names beside it can go then.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.kernel_runs import device
from support.renderers import CL, THREADED
from tinygrad import Device, Tensor, TinyJit, UOp, dtypes
from tinygrad.codegen import to_program
from tinygrad.codegen.opt import KernelOptError, Opt, OptOps
from tinygrad.codegen.opt.postrange import Scheduler
from tinygrad.engine.jit import create_graph_call
from tinygrad.helpers import Context
from tinygrad.renderer import Estimates
from tinygrad.runtime.ops_null import NullGraph
from tinygrad.uop.ops import AddrSpace, AxisType, KernelInfo, Ops, sym_infer

from kernels.tinygrad.slices import patch_tinygrad


def run(kernel, out, *inputs):
    """What `kernel`, over placeholders, leaves in an array that held `out`."""
    device()
    tensors = [Tensor(array).realize() for array in (out, *inputs)]
    return Tensor.custom_kernel(*tensors, fxn=kernel)[0].numpy()


def ones(*shape):
    return np.ones(shape, np.float32)


def arrays(*shapes, dtype=dtypes.float32):
    """Placeholders for the arguments of a kernel, in order."""
    return [UOp.placeholder(shape, dtype, slot=slot) for slot, shape in enumerate(shapes)]


def kernel_of(ended, *opts):
    return ended.sink(arg=KernelInfo(name="k", opts_to_apply=opts))


def test_the_wheel_lacks_the_kernels_of_its_own_models():
    found = importlib.util.find_spec("tinygrad.llm")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent  # not by import: what stands in for the module may be there already
    assert not (folder / "kernels").exists()
    assert not (folder / "kernels.py").exists()


def test_a_device_does_not_open_where_nothing_can_be_kept(tmp_path):
    device()
    (tmp_path / "file").write_text("")
    env = {**os.environ, "CACHEDB": str(tmp_path / "file" / "cache.db")}
    program = "from tinygrad import Tensor; (Tensor([1.0]) + 1).item()"
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert "FileExistsError" in done.stderr


def test_a_function_is_not_captured_in_its_first_call():
    device()
    step = TinyJit(lambda x: (x + 1).realize())
    x = Tensor(ones(3)).realize()
    step(x)
    assert step.captured is None
    step(x)
    assert step.captured is not None


def test_random_numbers_repeat_where_their_state_is_made_in_a_captured_function():
    program = """
from tinygrad import Tensor, TinyJit
step = TinyJit(lambda x: (x + Tensor.rand(3)).realize())
step.cnt = 1  # what kernels.tinygrad.capture does
x = Tensor.ones(3).contiguous().realize()
print(len({tuple(step(x).tolist()) for _ in range(4)}))
"""
    device()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


def test_a_device_that_is_open_cannot_be_asked_for_in_a_captured_function():
    name = device().name
    with Context(ALLOW_DEVICE_USAGE=0), pytest.raises(AssertionError, match="disallowed"):
        Device[name]


def test_a_symbolic_number_of_tokens_is_no_argument_of_a_kernel():
    device()
    x = Tensor(ones(7, 4)).realize()[: UOp.variable("count", 1, 7).bind(3)]
    with pytest.raises(AssertionError, match="symbolic shape"):
        Tensor.empty(4).custom_kernel(x, fxn=lambda out, x: out)


def test_a_variable_with_one_value_is_no_argument_of_a_kernel():
    device()
    out, x = (UOp.placeholder((4,), dtypes.float32, slot=i) for i in range(2))
    i, start = UOp.range(4, 0), UOp.variable("start", 0, 0)
    kernel = out[i].store(x[i] + start.cast(dtypes.float32)).end(i).sink(arg=KernelInfo(name="one", opts_to_apply=()))
    buffer = Tensor.empty(4).uop
    call = kernel.call(buffer, Tensor(ones(4)).realize().uop, start.bind(0))
    with pytest.raises(AssertionError, match=r"not Ops\.CONST"):
        Tensor(buffer.after(call)).realize()


def test_a_condition_on_an_index_forgets_the_loops_that_the_index_does_not_have():
    """out[0, j] is stored in turn 1 of the loop over rows only. Turn 3 comes last, and should leave it alone."""

    def kernel(out):
        row, j = UOp.range(4, 0, AxisType.LOOP), UOp.range(8, 1, AxisType.LOOP)
        stored = out[0, j.valid(row.eq(1))].store(row.cast(dtypes.float32))
        return stored.end(row, j).sink(arg=KernelInfo(name="masked", opts_to_apply=()))

    assert run(kernel, np.zeros((2, 8), np.float32))[0].tolist() == [3.0] * 8


def summed(*opts):
    """out [4] = the sums of the rows of x [4, 31]."""

    def kernel(out, x):
        i, k = UOp.range(4, 0), UOp.range(31, 1, AxisType.REDUCE)
        total = UOp(Ops.REDUCE, src=(x[i, k], k), arg=(Ops.ADD, 0))
        return out[i].store(total).end(i).sink(arg=KernelInfo(name="summed", opts_to_apply=opts))

    return run(kernel, np.zeros(4, np.float32), ones(4, 31)).tolist()


def test_a_sum_over_a_padded_and_unrolled_loop_loses_terms():
    assert summed() == [31.0] * 4
    assert summed(Opt(OptOps.PADTO, 1, 32), Opt(OptOps.UNROLL, 0, 2)) == [30.0] * 4


@pytest.mark.parametrize("op", [OptOps.UPCAST, OptOps.UNROLL])
def test_an_amount_of_1_breaks_the_rewriting(op):
    with pytest.raises(KeyError):
        summed(Opt(op, 0, 1))


def rendered(kernel):
    program = to_program(kernel, CL)
    return program.arg, program.src[2].arg


def test_a_padded_loop_reads_an_index_from_past_the_end():
    sizes = ((5, dtypes.float32), (5, dtypes.int32), (9, dtypes.float32))
    out, index, x = (UOp.placeholder((n,), dtype, slot=i) for i, (n, dtype) in enumerate(sizes))
    i = UOp.range(5, 0)
    info = KernelInfo(name="looked_up", opts_to_apply=(Opt(OptOps.PADTO, 0, 8),))
    _, source = rendered(out[i].store(x[index[i]]).end(i).sink(arg=info))
    assert "/* 8 */" in source  # workgroups, of which 3 have no index
    assert "int val0 = (*(data1_5+gidx0));" in source


def test_without_locals_the_size_of_a_workgroup_is_left_open():
    out, x = (UOp.placeholder((64,), dtypes.float32, slot=i) for i in range(2))
    i = UOp.range(64, 0)
    info = KernelInfo(name="copy", opts_to_apply=(Opt(OptOps.NOLOCALS),))
    described, _ = rendered(out[i].store(x[i]).end(i).sink(arg=info))
    assert described.local_size is None


def test_a_graph_binds_arguments_that_the_kernel_leaves_out():
    """The program has parameters for arguments 0 and 2. A graph binds the first buffers that it holds, one a parameter,
    and it holds all three."""
    out, _, x = arrays((4,), (4,), (4,))
    i = UOp.range(4, 0)
    program = to_program(kernel_of(out[i].store(x[i]).end(i)), Device["NULL"].renderer)
    call = program.call(*(Tensor.empty(4, device="NULL").uop for _ in range(3)))
    ((_, _, buffers, _),) = NullGraph(create_graph_call([call]).src[0]).calls
    assert program.arg.globals == (0, 2)
    assert len(buffers) == 3


@pytest.mark.parametrize(("emulated", "expected"), [("", 2.0**-24), ("half", 0.0)])
def test_a_denormal_is_zero_where_halves_are_emulated(emulated, expected):
    def kernel(out, bits):
        i = UOp.range(1, 0)
        value = bits[i].bitcast(dtypes.float16).cast(dtypes.float32)
        return kernel_of(out[i].store(value).end(i))

    with Context(EMULATED_DTYPES=emulated):
        assert run(kernel, np.zeros(1, np.float32), np.ones(1, np.uint16)).tolist() == [expected]


def triangle(kind):
    """out[i] = x[0] + ... + x[i]"""
    out, x = arrays((4,), (4,))
    i = UOp.range(4, 0, kind)
    j = UOp.range(i + 1, 1, AxisType.REDUCE)
    return kernel_of(out[i].store(UOp(Ops.REDUCE, src=(x[j], j), arg=(Ops.ADD, 0))).end(i))


def test_the_end_of_a_loop_ends_the_loop_that_its_length_depends_on():
    assert "Ridx1 < (gidx0+1)" in rendered(triangle(AxisType.GLOBAL))[1]
    with pytest.raises(KeyError):
        to_program(triangle(AxisType.LOOP), CL)


def test_the_condition_of_a_place_computed_from_memory_is_assumed_in_what_came_before():
    """All 16 threads should store 7 unless they are among the first four. Each stores what it loaded."""
    (out,), (_, x) = arrays((16,)), arrays((16,), (16,), dtype=dtypes.int32)
    thread = UOp.range(16, 0, AxisType.LOCAL)
    shared = UOp.placeholder((16,), dtypes.int32, slot=400, addrspace=AddrSpace.LOCAL)
    stored = shared[thread].store((thread < 4).where(x[thread], UOp.const(7, dtypes.int32)))
    place = shared.after(stored)[15 - thread].cast(dtypes.weakint)
    assert ":7)" in rendered(kernel_of(out[place].store(1.0).end(thread)))[1]
    assert "7" not in rendered(kernel_of(out[place.valid(thread < 4)].store(1.0).end(thread)))[1]


def test_a_condition_that_leaves_a_single_row_is_dropped():
    """Workgroup 0 alone has the row. Both store to it."""
    out, x = arrays((1, 1), (8,))
    group, thread = UOp.range(2, 0, AxisType.GLOBAL), UOp.range(4, 1, AxisType.LOCAL)
    row = group * 4 + thread
    _, source = rendered(kernel_of(out[0, row.valid(row < 1)].store(x[row]).end(group, thread)))
    assert [line.strip() for line in source.splitlines() if "if (" in line] == ["if ((lidx0==0)) {"]


def some_rows(masked):
    """The sums of the rows of x [5, 4], by 8 workgroups, of which 3 have no row and an empty loop."""
    out, x = arrays((8,), (5, 4))
    row = UOp.range(8, 0, AxisType.GLOBAL)
    k = UOp.range((row < 5).where(UOp.const(4, dtypes.weakint), 0), 1, AxisType.REDUCE)
    term = x[row.valid(row < 5) if masked else row.minimum(4), k]
    return kernel_of(out[row].store(UOp(Ops.REDUCE, src=(term, k), arg=(Ops.ADD, 0))).end(row))


def test_a_mask_s_condition_splits_a_loop_whose_length_depends_on_it():
    assert rendered(some_rows(masked=False))[1].count("for (") == 1
    with pytest.raises(KeyError):
        to_program(some_rows(masked=True), CL)


def test_a_loop_has_no_more_slices_than_processors_are_counted():
    (to,) = arrays((12,))
    i = UOp.range(12, 0)
    scheduler = Scheduler(kernel_of(to[i].store(1.0).end(i)), THREADED)
    scheduler.convert_loop_to_global()
    apply_opt = getattr(Scheduler.apply_opt, "__wrapped__", Scheduler.apply_opt)  # without the patch
    with Context(NUM_CPU_THREADS=2):
        apply_opt(scheduler.copy(), Opt(OptOps.THREAD, 0, 2))
        with pytest.raises(KernelOptError, match="too many threads"):
            apply_opt(scheduler, Opt(OptOps.THREAD, 0, 3))


def test_operations_are_counted_by_a_number_that_a_launch_does_not_know():
    """Where a loop's length depends on the slice."""
    (to,) = arrays((4, 8))
    part = UOp.variable("core_id", 0, 3, param=True)
    i = UOp.range(part * 2 + 1, 0, AxisType.LOOP)
    uops = (part, i, to[part, i].store(1.0))
    from_uops = getattr(Estimates.from_uops, "__wrapped__", Estimates.from_uops)  # without the patch
    with pytest.raises(TypeError, match="core_id"):
        sym_infer(from_uops(uops).ops + from_uops(uops).lds, {})
    patch_tinygrad()
    assert sym_infer(Estimates.from_uops(uops).lds, {}) == 4 * 4  # bytes of four slices like the first
